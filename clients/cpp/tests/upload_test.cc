// What becomes of an upload that the service says nothing of; prints what is wrong.

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <random>
#include <string>

#include "camserve/client.h"

namespace camserve {

struct Impatient {
  static void Waits(Client& client, std::chrono::nanoseconds idle) { client.idle_ = idle; }
};

}  // namespace camserve

namespace {

namespace v1 = camserve::v1;
using std::chrono::seconds;

// How a service stops talking, in the middle of an upload or at its end.
enum class Silence { kReadsNoMore, kDoesNotAnswer };

// Says nothing of the first upload until `over`.
class Silent : public v1::UploadService::Service {
 public:
  explicit Silent(Silence silence) : silence_(silence) {}

  grpc::Status UploadImage(grpc::ServerContext*, grpc::ServerReader<v1::UploadImageRequest>* messages,
                           v1::Upload* stored) override {
    const bool silent = calls++ == 0;
    v1::UploadImageRequest message;
    std::int64_t size = 0;
    while (!(silent && silence_ == Silence::kReadsNoMore) && messages->Read(&message)) {
      size += static_cast<std::int64_t>(message.body().data().size());
    }
    if (silent) over.get_future().wait();
    stored->set_size_bytes(size);
    return grpc::Status::OK;
  }

  std::atomic<int> calls = 0;
  std::promise<void> over;

 private:
  const Silence silence_;
};

constexpr std::int64_t kSize = 5'000'000;
int wrong = 0;

void Expect(bool right, const std::string& what) {
  if (right) return;
  std::cerr << what << '\n';
  ++wrong;
}

void BeginsAnew(const std::string& path, Silence silence, const std::string& name) {
  Silent service(silence);
  int port = 0;
  const auto server = grpc::ServerBuilder()
                          .AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port)
                          .RegisterService(&service)
                          .BuildAndStart();
  camserve::Client client("127.0.0.1:" + std::to_string(port), "token");
  camserve::Impatient::Waits(client, seconds(2));
  try {
    Expect(client.Upload(path).size_bytes() == kSize, name + ": not all was stored");
  } catch (const camserve::Error& refused) {
    Expect(false, name + ": " + refused.what());
  }
  Expect(service.calls == 2, name + ": " + std::to_string(service.calls) + " attempts");
  service.over.set_value();
  server->Shutdown();
}

}  // namespace

int main() {
  const std::string name = "camserve-" + std::to_string(std::random_device{}());
  const std::string path = std::filesystem::temp_directory_path() / name;
  std::ofstream(path, std::ios::binary) << std::string(kSize, '\0');
  BeginsAnew(path, Silence::kReadsNoMore, "a service that reads no more");
  BeginsAnew(path, Silence::kDoesNotAnswer, "a service that does not answer");
  std::filesystem::remove(path);
  return wrong == 0 ? 0 : 1;
}
