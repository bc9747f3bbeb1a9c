#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>

#include "camserve/v1/errors.pb.h"

namespace camserve {

// Says why a call failed, whoever refused: the service, the way to it, or this client.
class Error : public std::runtime_error {
 public:
  // Reads the error out of a status that is not OK.
  static Error Of(const grpc::Status& refused, const grpc::ClientContext& call);

  // An error of this client.
  Error(std::string code, int status, const std::string& message);

  // One of the catalogue (docs/errors.md), or `connection.failed` or `answer.invalid` of this client.
  const std::string& code() const { return code_; }
  // The HTTP status that stands for the code, 0 where nothing answered.
  int status() const { return status_; }
  // What finds the call in the service's log; empty where no service answered.
  const std::string& request_id() const { return request_id_; }
  // How long to wait before another attempt, where the service said so.
  std::optional<std::chrono::nanoseconds> retry_after() const { return retry_after_; }
  // Whether the same call may succeed later.
  bool retryable() const;

 private:
  std::string code_;
  int status_;
  std::string request_id_;
  std::optional<std::chrono::nanoseconds> retry_after_;
};

}  // namespace camserve
