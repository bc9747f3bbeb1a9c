package camserve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "camserve.example/go/gen/camserve/v1"
)

// Codes of this client, beside those of the service's catalogue.
const (
	// CodeConnectionFailed says that the service cannot be reached, or that the connection broke.
	CodeConnectionFailed = "connection.failed"
	// CodeAnswerInvalid says that what answered is not the service.
	CodeAnswerInvalid = "answer.invalid"
	// CodeImageUnreadable says that this side could not read the image.
	CodeImageUnreadable = "image.unreadable"
)

const (
	codeClosed         = "client.closed"
	codeTimeout        = "timeout.exceeded"
	codeInProgress     = "idempotency.in_progress"
	codeOffsetConflict = "upload.offset_conflict"
)

var errClosed = &Error{Code: codeClosed, Message: "The client is closed.", Status: 499}

// Error says why a call failed, whoever refused: the service, the way to it, or this client.
type Error struct {
	// Code is one of the catalogue (docs/errors.md), or of this client.
	Code string
	// Message is for people.
	Message string
	// Status is the HTTP status, although gRPC was spoken; 0 where nothing answered.
	Status int
	// RequestID finds the call in the service's log. Empty where the service did not answer.
	RequestID string
	// RetryAfter is how long to wait before another attempt. 0 where the service did not say.
	RetryAfter time.Duration
	// Details holds facts about the error, such as a limit. Nil where there are none.
	Details map[string]any
	cause   error
}

// Error returns the code, the message and the request id.
func (e *Error) Error() string {
	if e.RequestID == "" {
		return fmt.Sprintf("%s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%s: %s (request %s)", e.Code, e.Message, e.RequestID)
}

// Unwrap returns what led to the error, such as context.Canceled, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Retryable is true when the same call may succeed later.
func (e *Error) Retryable() bool {
	switch e.Status {
	case 429, 502, 503, 504:
		return true
	}
	return e.Code == CodeConnectionFailed || e.Code == codeInProgress
}

// What an error is where it carries its canonical code only: made by the edge, by gRPC itself or by something between.
var byGRPCCode = map[codes.Code]Error{
	codes.InvalidArgument:  {Code: "param.invalid", Status: 400},
	codes.Unauthenticated:  {Code: "auth.invalid_token", Status: 401},
	codes.PermissionDenied: {Code: "access.denied", Status: 403},
	codes.NotFound:         {Code: "route.not_found", Status: 404},
	codes.Unimplemented:    {Code: "route.not_found", Status: 404},
	codes.OutOfRange:       {Code: "body.too_large", Status: 413},
	codes.DeadlineExceeded: {Code: codeTimeout, Status: 504},
	codes.Unavailable:      {Code: CodeConnectionFailed, Status: 503},
	codes.Canceled:         {Code: CodeConnectionFailed},
	codes.Internal:         {Code: "internal", Status: 500},
}

// failure returns the *Error of a call that ended with err. Nil and io.EOF stay what they are.
func failure(ctx context.Context, err error, trailer metadata.MD) error {
	var known *Error
	if err == nil || err == io.EOF || errors.As(err, &known) {
		return err
	}
	if cause := context.Cause(ctx); errors.As(cause, &known) {
		return known
	}
	if ctx.Err() == context.Canceled {
		return &Error{Code: codeClosed, Message: "The caller left.", Status: 499, cause: context.Canceled}
	}
	said, ok := status.FromError(err)
	if !ok {
		said = status.FromContextError(err)
	}
	retryAfter, when := wait(trailer.Get("retry-after"))
	var described *pb.ErrorObject
	for _, detail := range said.Details() {
		switch one := detail.(type) {
		case *pb.ErrorObject:
			described = one
		case *errdetails.RetryInfo:
			if !when {
				retryAfter, when = one.GetRetryDelay().AsDuration(), true
			}
		}
	}
	if described != nil {
		return errorOf(described, retryAfter)
	}
	made, ok := byGRPCCode[said.Code()]
	switch {
	case said.Code() == codes.ResourceExhausted && !when:
		// Without a time to come again it is gRPC's own word for a message above the limit.
		made = Error{Code: "body.too_large", Status: 413}
	case said.Code() == codes.ResourceExhausted:
		made = Error{Code: "rate.exceeded", Status: 429}
	case said.Code() == codes.Unavailable && when:
		// The edge says so; a connection says nothing of when.
		made = Error{Code: "service.overloaded", Status: 503}
	case !ok:
		made = Error{Code: CodeAnswerInvalid}
	}
	made.Message, made.RetryAfter = said.Message(), retryAfter
	if ids := trailer.Get("request-id"); len(ids) > 0 {
		made.RequestID = ids[0]
	}
	if ctx.Err() != nil {
		made.cause = ctx.Err()
	}
	return &made
}

// errorOf returns the error that a message describes.
func errorOf(described *pb.ErrorObject, retryAfter time.Duration) *Error {
	made := &Error{
		Code:       described.GetCode(),
		Message:    described.GetMessage(),
		Status:     int(described.GetStatus()),
		RequestID:  described.GetRequestId(),
		RetryAfter: retryAfter,
	}
	if described.GetDetails() != nil {
		made.Details = described.GetDetails().AsMap()
	}
	return made
}

// AsError returns the error of an image of a batch or of a job; nil where it has none.
func AsError(described *pb.ErrorObject) error {
	if described == nil {
		return nil
	}
	return errorOf(described, 0)
}

// wait reads Retry-After, seconds or a date, which something between may say; false where it says nothing.
func wait(values []string) (time.Duration, bool) {
	if len(values) == 0 {
		return 0, false
	}
	// What is too large for 64 bits comes as the largest number.
	count, err := strconv.ParseUint(values[0], 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(count, uint64(longestWait/time.Second))) * time.Second, true
	}
	date, err := http.ParseTime(values[0])
	if err != nil {
		return 0, false
	}
	return max(0, time.Until(date)), true
}
