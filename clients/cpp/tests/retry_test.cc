// When a call is tried again, by a service that refuses and answers as it is told; prints what is wrong.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <ctime>
#include <iostream>
#include <string>

#include "camserve/client.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace {

namespace v1 = camserve::v1;
using std::chrono::seconds;

// Refuses every call with what it is told, or answers it with nothing but a model.
class Faulty : public v1::InferenceService::Service {
 public:
  grpc::Status Infer(grpc::ServerContext* call, const v1::InferRequest* request, v1::InferResponse* answer) override {
    if (!retry_after.empty()) call->AddTrailingMetadata("retry-after", retry_after);
    if (!retry_after.empty() || !details.empty()) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "no", details);
    answer->set_model(request->model());
    return grpc::Status::OK;
  }

  std::string retry_after;
  std::string details;
};

int wrong = 0;

void Expect(bool right, const std::string& what) {
  if (right) return;
  std::cerr << what << '\n';
  ++wrong;
}

std::string HttpDate(std::time_t when) {
  char text[64];
  std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", std::gmtime(&when));
  return text;
}

std::string RetryInfo(std::int64_t retry_seconds) {
  google::rpc::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(retry_seconds);
  google::rpc::Status status;
  status.add_details()->PackFrom(info);
  return status.SerializeAsString();
}

}  // namespace

int main() {
  Faulty service;
  int port = 0;
  const auto server = grpc::ServerBuilder()
                          .AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port)
                          .RegisterService(&service)
                          .BuildAndStart();
  camserve::Options options;
  options.timeout = seconds(20);
  const camserve::Client client("127.0.0.1:" + std::to_string(port), "token", options);
  v1::InferRequest request;
  request.set_model("shapes");

  // Who is told to come again too late gives up at once, and hears of it.
  const auto gives_up = [&](const std::string& told, seconds least) {
    try {
      client.Infer(request);
      Expect(false, told + ": it should have given up");
    } catch (const camserve::Error& refused) {
      Expect(refused.code() == "service.overloaded", told + ": " + refused.code());
      Expect(refused.retry_after() >= least, told + ": waits for less");
    }
  };
  const std::time_t now = std::time(nullptr);
  for (const auto& told : {HttpDate(now + 600), std::string("600"), std::string("99999999999"),
                           std::string("99999999999999999999"), std::string("Fri, 31 Dec 9999 23:59:59 GMT")}) {
    service.retry_after = told;
    gives_up(told, seconds(500));
  }
  service.retry_after.clear();
  service.details = RetryInfo(315'576'000'000);
  gives_up("RetryInfo", seconds(500));
  service.details.clear();

  Expect(client.Infer(request).model() == "shapes", "an answer without classes is one");
  try {
    client.Infer(v1::InferRequest());
    Expect(false, "an empty answer is none");
  } catch (const camserve::Error& refused) {
    Expect(refused.code() == "answer.invalid", refused.code());
  }
  server->Shutdown();
  return wrong == 0 ? 0 : 1;
}
