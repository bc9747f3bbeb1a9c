package camserve

import (
	"context"
	"crypto/rand"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	options "camserve.example/go/gen/camserve/options/v1"
)

const keyHeader = "idempotency-key"

type keyOfContext struct{}

// WithIdempotencyKey makes a call with this context use key, 1 to 255 visible ASCII characters, instead of one
// made for it. The same call under the same key is answered again for 24 hours and never runs twice.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOfContext{}, key)
}

func hasKey(ctx context.Context) bool {
	_, has := ctx.Value(keyOfContext{}).(string)
	return has
}

// withoutKey is for calls that a call makes on its way, which have keys of their own.
func withoutKey(ctx context.Context) context.Context {
	return context.WithValue(ctx, keyOfContext{}, nil)
}

// unary makes every attempt at a call under one key, and within one time.
//
// All of them may be repeated: those that create have a key, the others do the same when sent twice.
func (c *Client) unary(
	ctx context.Context, method string, request, reply any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker,
	callOptions ...grpc.CallOption,
) error {
	ctx, cancel := c.bounded(ctx, c.timeout)
	defer cancel()
	ctx, err := keyed(ctx, method)
	if err != nil {
		return err
	}
	return c.retries.run(ctx, func() error {
		var trailer metadata.MD
		err := invoke(ctx, method, request, reply, connection, append(callOptions, grpc.Trailer(&trailer))...)
		return c.failure(ctx, err, trailer)
	})
}

// stream makes a single attempt whose failures are *Error.
func (c *Client) stream(
	ctx context.Context, description *grpc.StreamDesc, connection *grpc.ClientConn, method string, open grpc.Streamer,
	callOptions ...grpc.CallOption,
) (grpc.ClientStream, error) {
	opened, err := open(ctx, description, connection, method, callOptions...)
	if err != nil {
		return nil, c.failure(ctx, err, nil)
	}
	return told{opened, c, ctx}, nil
}

// told is a stream whose failures are *Error. Its own context is canceled however it ends; the caller's tells more.
type told struct {
	grpc.ClientStream
	client *Client
	caller context.Context
}

func (t told) SendMsg(message any) error {
	return t.client.failure(t.caller, t.ClientStream.SendMsg(message), nil)
}

func (t told) RecvMsg(message any) error {
	if err := t.ClientStream.RecvMsg(message); err != nil {
		return t.client.failure(t.caller, err, t.Trailer())
	}
	return nil
}

// failure is that of a call; once the client is closed, that it is.
func (c *Client) failure(ctx context.Context, err error, trailer metadata.MD) error {
	if err != nil && err != io.EOF && c.life.Err() != nil {
		return errClosed
	}
	return failure(ctx, err, trailer)
}

// alive ends a context with the client too: a pause between two attempts hears of no connection.
func (c *Client) alive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	forget := context.AfterFunc(c.life, func() { cancel(errClosed) })
	return ctx, func() {
		forget()
		cancel(nil)
	}
}

// bounded is alive, and gives a context a deadline where it has none.
func (c *Client) bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, end := c.alive(ctx)
	if _, has := ctx.Deadline(); has {
		return ctx, end
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	return ctx, func() {
		cancel()
		end()
	}
}

// keyed adds a key to the calls that take one, which their policy in the protos says.
func keyed(ctx context.Context, method string) (context.Context, error) {
	if !takesKey(method) {
		return ctx, nil
	}
	key, given := ctx.Value(keyOfContext{}).(string)
	switch {
	case !given:
		key = rand.Text()
	case key == "" || len(key) > 255 || strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' }):
		// Said here: what no header can carry would never come to the service.
		return ctx, &Error{
			Code: "idempotency.key_invalid", Message: "A key is 1 to 255 visible ASCII characters.", Status: 400,
		}
	}
	return metadata.AppendToOutgoingContext(ctx, keyHeader, key), nil
}

func takesKey(method string) bool {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return false
	}
	declared, ok := found.Options().(*descriptorpb.MethodOptions)
	if !ok {
		return false
	}
	policy, _ := proto.GetExtension(declared, options.E_Policy).(*options.Policy)
	return policy.GetIdempotency().GetOperation() != ""
}
