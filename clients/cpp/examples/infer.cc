// Classifies an image and writes its heatmap: `infer PHOTO HEATMAP [MODEL]`.

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "camserve/client.h"

namespace {

std::string Read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

int main(int count, char** arguments) {
  const char* target = std::getenv("CAM_ADDRESS");
  const char* token = std::getenv("CAM_TOKEN");
  if (count < 3 || target == nullptr || token == nullptr) {
    std::cerr << "usage: CAM_ADDRESS=host:port CAM_TOKEN=… infer PHOTO HEATMAP [MODEL]\n";
    return 2;
  }
  camserve::Options options;
  if (const char* authorities = std::getenv("CAM_CA")) {
    options.tls = true;
    options.authorities = Read(authorities);
  }
  const camserve::Client client(target, token, options);
  camserve::v1::InferRequest request;
  request.set_model(count > 3 ? arguments[3] : "shapes");
  request.mutable_image()->set_bytes(Read(arguments[1]));
  request.mutable_grad_cam()->set_enabled(true);
  request.mutable_response()->set_heatmap("inline");
  try {
    const camserve::v1::InferResponse answer = client.Infer(request);
    for (const auto& one : answer.classes()) std::cout << one.label() << ' ' << one.prob() << '\n';
    std::ofstream(arguments[2], std::ios::binary) << answer.heatmap().data_b64();
  } catch (const camserve::Error& refused) {
    std::cout << refused.code() << ' ' << refused.status() << ' ' << refused.request_id() << '\n';
    return 1;
  }
}
