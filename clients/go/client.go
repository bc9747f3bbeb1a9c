package camserve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	pb "camserve.example/go/gen/camserve/v1"
)

const (
	userAgent    = "camserve-go/0.1.0"
	maxReceived  = 64 << 20
	maxSent      = 1 << 30
	defaultTime  = 60 * time.Second
	reconnectMin = 100 * time.Millisecond
	reconnectMax = 2 * time.Second
)

// Client calls one service over one connection. It is meant to be kept, and shared between goroutines.
type Client struct {
	Inference pb.InferenceServiceClient
	Jobs      pb.JobServiceClient
	Models    pb.ModelServiceClient
	Uploads   pb.UploadServiceClient
	Objects   pb.ObjectServiceClient
	Webhooks  pb.WebhookServiceClient
	Limits    pb.LimitServiceClient
	Health    pb.HealthServiceClient

	connection *grpc.ClientConn
	// Ends with Close.
	life    context.Context
	end     context.CancelFunc
	retries retries
	timeout time.Duration
}

// Token gives the token of a call. It is asked at every attempt, and so may renew it.
type Token func(context.Context) (string, error)

// Option changes how a Client works.
type Option func(*settings)

type settings struct {
	token   Token
	timeout time.Duration
	backoff Backoff
	tls     *tls.Config
}

// WithToken signs calls in with a JWT.
func WithToken(token string) Option {
	return WithTokenSource(func(context.Context) (string, error) { return token, nil })
}

// WithTokenSource signs calls in with what a function gives.
func WithTokenSource(token Token) Option { return func(s *settings) { s.token = token } }

// WithTimeout sets how long a call with all its attempts may take where its context has no deadline: 60 s by default.
func WithTimeout(timeout time.Duration) Option { return func(s *settings) { s.timeout = timeout } }

// WithBackoff sets the pauses between attempts.
func WithBackoff(backoff Backoff) Option { return func(s *settings) { s.backoff = backoff } }

// WithTLS sets the authorities and certificates of encrypted connections.
func WithTLS(config *tls.Config) Option { return func(s *settings) { s.tls = config } }

// NewClient returns a client of the service at address, which connects when it is first used.
//
// It speaks gRPC, at the service's own port (`grpc://127.0.0.1:50051`, `grpcs://…`) or through the edge
// (`http://127.0.0.1:8080`, `https://…`). `grpcs` and `https` are encrypted. Without a scheme the connection is
// encrypted unless the host is this machine.
func NewClient(address string, options ...Option) (*Client, error) {
	chosen := settings{timeout: defaultTime, backoff: DefaultBackoff}
	for _, option := range options {
		option(&chosen)
	}
	target, encrypted, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	client := &Client{life: life, end: end, retries: newRetries(chosen.backoff), timeout: chosen.timeout}
	security := insecure.NewCredentials()
	if encrypted {
		security = credentials.NewTLS(chosen.tls)
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithUserAgent(userAgent),
		// Attempts are counted in one place, which knows keys and deadlines.
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceived), grpc.MaxCallSendMsgSize(maxSent)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectMin, Multiplier: 2, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithUnaryInterceptor(client.unary),
		grpc.WithStreamInterceptor(client.stream),
	}
	if chosen.token != nil {
		dial = append(dial, grpc.WithPerRPCCredentials(bearer{chosen.token}))
	}
	client.connection, err = grpc.NewClient(target, dial...)
	if err != nil {
		return nil, fmt.Errorf("camserve: %w", err)
	}
	client.Inference = pb.NewInferenceServiceClient(client.connection)
	client.Jobs = pb.NewJobServiceClient(client.connection)
	client.Models = pb.NewModelServiceClient(client.connection)
	client.Uploads = pb.NewUploadServiceClient(client.connection)
	client.Objects = pb.NewObjectServiceClient(client.connection)
	client.Webhooks = pb.NewWebhookServiceClient(client.connection)
	client.Limits = pb.NewLimitServiceClient(client.connection)
	client.Health = pb.NewHealthServiceClient(client.connection)
	return client, nil
}

// Close ends the connection and every call, also those that wait for another attempt: they fail with client.closed, and
// so does what is called afterwards.
func (c *Client) Close() error {
	c.end()
	return c.connection.Close()
}

// bearer puts a token into every attempt, encrypted or not: the address decides about that.
type bearer struct{ token Token }

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b.token(ctx)
	if err != nil {
		return nil, err
	}
	// Files that tokens are read from end in a newline, which no header takes.
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

var schemes = map[string]struct {
	encrypted bool
	port      string
}{"grpc": {false, "50051"}, "grpcs": {true, "443"}, "http": {false, "80"}, "https": {true, "443"}}

var errAddress = errors.New(
	"camserve: an address is grpc://, grpcs://, http:// or https:// with a host and, if need be, a port")

func parseAddress(address string) (target string, encrypted bool, err error) {
	if !strings.Contains(address, "://") {
		host, _, _ := net.SplitHostPort(address)
		if host == "" {
			host = strings.Trim(address, "[]")
		}
		scheme := "grpcs://"
		if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
			scheme = "grpc://"
		}
		address = scheme + address
	}
	parts, err := url.Parse(address)
	if err == nil {
		scheme, known := schemes[parts.Scheme]
		plain := parts.User == nil && parts.RawQuery == "" && parts.Fragment == "" && strings.Trim(parts.Path, "/") == ""
		if known && plain && parts.Hostname() != "" {
			port := parts.Port()
			if port == "" {
				port = scheme.port
			}
			return net.JoinHostPort(parts.Hostname(), port), scheme.encrypted, nil
		}
	}
	return "", false, errAddress
}
