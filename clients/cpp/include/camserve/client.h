#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "camserve/error.h"
#include "camserve/v1/inference.grpc.pb.h"
#include "camserve/v1/uploads.grpc.pb.h"

namespace camserve {

// Exponential backoff with full jitter: a random time up to `first`, which doubles after each attempt, up to `cap`.
// Where the service says when to come again, the random time is added to that.
struct Backoff {
  std::chrono::nanoseconds first = std::chrono::milliseconds(500);
  std::chrono::nanoseconds cap = std::chrono::seconds(30);

  // The longest random wait after that many failures, 1 or more.
  std::chrono::nanoseconds Window(int failures) const;
};

struct Options {
  // Limits the time of a call with all its attempts. An upload has as much more as its bytes take at 64 KiB a second.
  std::chrono::nanoseconds timeout = std::chrono::seconds(60);
  Backoff backoff;
  // Encrypts the connection, by these certificate authorities (PEM), or those of the system where none are given.
  bool tls = false;
  std::string authorities;
};

// Calls the service over gRPC, at its own port or through the edge. One client is meant to be kept and shared by all
// threads: its connection is reused.
//
// Every failure is an Error. A write is tried again, under one idempotency key, where that may help.
class Client {
 public:
  // How many bytes of how many are on their way or there.
  using OnProgress = std::function<void(std::int64_t sent_bytes, std::int64_t total_bytes)>;

  // `target` is `host:port`; `token` is a JWT.
  Client(const std::string& target, std::string token, Options options = {});

  // Returns the classes of an image and, if asked for, its heatmap, or the receipt of a job that it became (`job_id`).
  // `key` is 1 to 255 visible ASCII characters; without one a key is made here.
  v1::InferResponse Infer(const v1::InferRequest& request, const std::string& key = "") const;

  // Stores the image in a file, of which a quarter of a megabyte is in memory at a time. An attempt after a broken
  // connection, or one that moved no byte for a minute, begins anew. Throws std::ios_base::failure for an unreadable file.
  v1::Upload Upload(const std::string& path, const OnProgress& on_progress = {}) const;

  // The connection, for the generated stubs of `camserve::v1`; each call needs Authorize.
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  // Adds the caller's token to a call.
  void Authorize(grpc::ClientContext& call) const;

 private:
  // A test, which does not wait for minutes.
  friend struct Impatient;

  template <typename Attempt>
  void Retried(std::chrono::nanoseconds timeout, const std::string& key, const Attempt& attempt) const;

  std::shared_ptr<grpc::Channel> channel_;
  std::string token_;
  Options options_;
  // An upload that moves no byte for so long is over, even if its connection does not say so.
  std::chrono::nanoseconds idle_ = std::chrono::seconds(60);
};

}  // namespace camserve
