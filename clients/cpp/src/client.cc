#include "camserve/client.h"

#include <algorithm>
#include <fstream>
#include <iomanip>
#include <random>
#include <sstream>
#include <thread>
#include <utility>

namespace camserve {
namespace {

using Clock = std::chrono::system_clock;

constexpr int kMostBytes = 64 << 20;
constexpr std::int64_t kChunkBytes = 256 << 10;
// The slowest network that still counts as one.
constexpr std::int64_t kSlowestBytesPerSecond = 64 << 10;

std::mt19937_64& Random() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return random;
}

// A UUID, version 4.
std::string MadeKey() {
  std::uint64_t high = Random()();
  std::uint64_t low = Random()();
  high = (high & ~0xf000ULL) | 0x4000ULL;
  low = (low & ~(3ULL << 62)) | (2ULL << 62);
  std::ostringstream key;
  key << std::hex << std::setfill('0') << std::setw(8) << (high >> 32) << '-' << std::setw(4) << ((high >> 16) & 0xffff)
      << '-' << std::setw(4) << (high & 0xffff) << '-' << std::setw(4) << (low >> 48) << '-' << std::setw(12)
      << (low & 0xffffffffffffULL);
  return key.str();
}

std::string Keyed(const std::string& key) {
  if (key.empty()) return MadeKey();
  const bool visible = std::all_of(key.begin(), key.end(), [](char one) { return one >= '!' && one <= '~'; });
  if (!visible || key.size() > 255) {
    throw Error("idempotency.key_invalid", 400, "A key is 1 to 255 visible ASCII characters.");
  }
  return key;
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(const Options& options) {
  if (!options.tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = options.authorities;
  return grpc::SslCredentials(tls);
}

// An upload as a stream, of which no step may take longer than `idle`: each message, and the answer.
class Sending {
 public:
  Sending(v1::UploadService::Stub& stub, grpc::ClientContext& call, v1::Upload& stored, std::chrono::nanoseconds idle)
      : call_(call), idle_(idle), writer_(stub.PrepareAsyncUploadImage(&call, &stored, &steps_)) {
    writer_->StartCall(nullptr);
    Done();
  }

  ~Sending() { steps_.Shutdown(); }

  // Waits while the network is slower than the disk. Returns false when the call has ended: its status says why.
  bool Write(const v1::UploadImageRequest& message) {
    writer_->Write(message, nullptr);
    return Done();
  }

  grpc::Status Finish() {
    writer_->WritesDone(nullptr);
    Done();
    grpc::Status status;
    writer_->Finish(&status, nullptr);
    Done();
    return silent_ && status.error_code() == grpc::StatusCode::CANCELLED
               ? grpc::Status(grpc::StatusCode::CANCELLED, "The upload did not move.")
               : status;
  }

 private:
  bool Done() {
    void* step = nullptr;
    bool well = false;
    const auto ends = Clock::now() + std::chrono::duration_cast<Clock::duration>(idle_);
    if (steps_.AsyncNext(&step, &well, ends) == grpc::CompletionQueue::TIMEOUT) {
      silent_ = true;
      call_.TryCancel();
      steps_.Next(&step, &well);
    }
    return well;
  }

  grpc::ClientContext& call_;
  const std::chrono::nanoseconds idle_;
  bool silent_ = false;
  // One step at a time.
  grpc::CompletionQueue steps_;
  const std::unique_ptr<grpc::ClientAsyncWriter<v1::UploadImageRequest>> writer_;
};

}  // namespace

std::chrono::nanoseconds Backoff::Window(int failures) const {
  std::chrono::nanoseconds window = first;
  for (int doubled = 1; doubled < failures && window < cap; ++doubled) window *= 2;
  return std::min(window, cap);
}

Client::Client(const std::string& target, std::string token, Options options)
    : token_(std::move(token)), options_(std::move(options)) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMostBytes);
  // Attempts are counted in one place, which knows keys and deadlines.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // With the defaults a channel that lost its server refuses calls for up to two minutes without trying.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetUserAgentPrefix("camserve-cpp");
  channel_ = grpc::CreateCustomChannel(target, Credentials(options_), arguments);
}

void Client::Authorize(grpc::ClientContext& call) const { call.AddMetadata("authorization", "Bearer " + token_); }

template <typename Attempt>
void Client::Retried(std::chrono::nanoseconds timeout, const std::string& key, const Attempt& attempt) const {
  const auto ends = Clock::now() + std::chrono::duration_cast<Clock::duration>(timeout);
  for (int failures = 1;; ++failures) {
    grpc::ClientContext call;
    Authorize(call);
    call.AddMetadata("idempotency-key", key);
    call.set_deadline(ends);
    const grpc::Status status = attempt(call);
    if (status.ok()) return;
    const Error refused = Error::Of(status, call);
    std::uniform_int_distribution<std::int64_t> random(0, options_.backoff.Window(failures).count());
    const auto pause = refused.retry_after().value_or(std::chrono::nanoseconds(0)) +
                       std::chrono::nanoseconds(random(Random()));
    if (!refused.retryable() || Clock::now() + std::chrono::duration_cast<Clock::duration>(pause) >= ends) {
      throw refused;
    }
    std::this_thread::sleep_for(pause);
  }
}

v1::InferResponse Client::Infer(const v1::InferRequest& request, const std::string& key) const {
  const auto stub = v1::InferenceService::NewStub(channel_);
  v1::InferResponse answer;
  Retried(options_.timeout, Keyed(key),
          [&](grpc::ClientContext& call) { return stub->Infer(&call, request, &answer); });
  // Classes may all be less probable than was asked for; a model always answers.
  if (!answer.has_job_id() && answer.model().empty()) throw Error("answer.invalid", 0, "The answer is empty.");
  return answer;
}

v1::Upload Client::Upload(const std::string& path, const OnProgress& on_progress) const {
  std::ifstream file;
  file.exceptions(std::ios::failbit | std::ios::badbit);
  file.open(path, std::ios::binary | std::ios::ate);
  const std::int64_t size = file.tellg();
  const auto timeout = options_.timeout + std::chrono::seconds(size / kSlowestBytesPerSecond);
  const auto stub = v1::UploadService::NewStub(channel_);
  v1::Upload stored;
  Retried(timeout, Keyed(""), [&](grpc::ClientContext& call) {
    file.seekg(0);
    Sending sending(*stub, call, stored, idle_);
    v1::UploadImageRequest message;
    message.set_size_bytes(size);
    message.mutable_body()->set_content_type("application/octet-stream");
    std::int64_t sent = 0;
    bool goes_on = true;
    do {
      const std::int64_t count = std::min(kChunkBytes, size - sent);
      std::string& chunk = *message.mutable_body()->mutable_data();
      chunk.resize(static_cast<std::size_t>(count));
      try {
        file.read(chunk.data(), count);
      } catch (const std::ios_base::failure&) {
        // A call must be finished, whatever becomes of it.
        call.TryCancel();
        sending.Finish();
        throw;
      }
      goes_on = sending.Write(message);
      message.clear_size_bytes();
      sent += count;
      if (goes_on && on_progress) on_progress(sent, size);
    } while (goes_on && sent < size);
    return sending.Finish();
  });
  return stored;
}

}  // namespace camserve
