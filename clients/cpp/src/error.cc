#include "camserve/error.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <ctime>
#include <iomanip>
#include <locale>
#include <sstream>
#include <utility>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace camserve {
namespace {

// Longer than anybody waits, and short enough to be added to any time.
constexpr std::int64_t kLongestSeconds = 999'999'999;

std::string Trailer(const grpc::ClientContext& call, const std::string& name) {
  const auto& trailers = call.GetServerTrailingMetadata();
  const auto found = trailers.find(name);
  return found == trailers.end() ? "" : std::string(found->second.data(), found->second.size());
}

std::chrono::nanoseconds Bounded(std::int64_t seconds) {
  return std::chrono::seconds(std::clamp<std::int64_t>(seconds, 0, kLongestSeconds));
}

// Reads Retry-After: seconds, or a date where something between wrote it.
std::optional<std::chrono::nanoseconds> Wait(const std::string& text) {
  if (text.empty()) return std::nullopt;
  if (std::all_of(text.begin(), text.end(), [](unsigned char one) { return std::isdigit(one) != 0; })) {
    return Bounded(text.size() > 9 ? kLongestSeconds : std::stoi(text));
  }
  std::tm date{};
  std::istringstream written(text);
  written.imbue(std::locale::classic());
  written >> std::get_time(&date, "%a, %d %b %Y %H:%M:%S GMT");
  if (written.fail()) return std::nullopt;
  return Bounded(timegm(&date) - std::time(nullptr));
}

// Says what an error is that carries its canonical code only: made by the edge, by gRPC or by something between.
std::pair<const char*, int> Named(grpc::StatusCode code, bool says_when) {
  switch (code) {
    case grpc::StatusCode::INVALID_ARGUMENT:
      return {"param.invalid", 400};
    case grpc::StatusCode::UNAUTHENTICATED:
      return {"auth.invalid_token", 401};
    case grpc::StatusCode::PERMISSION_DENIED:
      return {"access.denied", 403};
    case grpc::StatusCode::NOT_FOUND:
    case grpc::StatusCode::UNIMPLEMENTED:
      return {"route.not_found", 404};
    case grpc::StatusCode::OUT_OF_RANGE:
      return {"body.too_large", 413};
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      // Without a time to come again it is gRPC's own word for a message above the limit.
      if (says_when) return {"rate.exceeded", 429};
      return {"body.too_large", 413};
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return {"timeout.exceeded", 504};
    case grpc::StatusCode::UNAVAILABLE:
      // With one the edge says so; a connection says nothing of when.
      return {says_when ? "service.overloaded" : "connection.failed", 503};
    case grpc::StatusCode::CANCELLED:
      return {"connection.failed", 0};
    case grpc::StatusCode::INTERNAL:
      return {"internal", 500};
    default:
      return {"answer.invalid", 0};
  }
}

}  // namespace

Error::Error(std::string code, int status, const std::string& message)
    : std::runtime_error(code + ": " + message), code_(std::move(code)), status_(status) {}

Error Error::Of(const grpc::Status& refused, const grpc::ClientContext& call) {
  std::optional<std::chrono::nanoseconds> retry_after = Wait(Trailer(call, "retry-after"));
  v1::ErrorObject described;
  google::rpc::Status details;
  // A status whose details cannot be read still has its code.
  if (details.ParseFromString(refused.error_details())) {
    for (const auto& detail : details.details()) {
      google::rpc::RetryInfo retry;
      if (detail.Is<v1::ErrorObject>()) {
        detail.UnpackTo(&described);
      } else if (detail.UnpackTo(&retry)) {
        retry_after = Bounded(retry.retry_delay().seconds()) + std::chrono::nanoseconds(retry.retry_delay().nanos());
      }
    }
  }
  const auto [code, status] = Named(refused.error_code(), retry_after.has_value());
  Error error = described.code().empty() ? Error(code, status, refused.error_message())
                                         : Error(described.code(), described.status(), described.message());
  error.request_id_ = described.code().empty() ? Trailer(call, "request-id") : described.request_id();
  error.retry_after_ = retry_after;
  return error;
}

bool Error::retryable() const {
  return code_ == "connection.failed" || code_ == "idempotency.in_progress" || status_ == 429 ||
         (status_ >= 502 && status_ <= 504);
}

}  // namespace camserve
