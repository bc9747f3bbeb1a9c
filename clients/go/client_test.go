package camserve

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "camserve.example/go/gen/camserve/v1"
)

// faulty is a service that refuses so many calls first, and remembers what it was sent.
type faulty struct {
	pb.UnimplementedJobServiceServer
	pb.UnimplementedHealthServiceServer
	pb.UnimplementedInferenceServiceServer
	pb.UnimplementedLimitServiceServer
	pb.UnimplementedUploadServiceServer
	mutex    sync.Mutex
	refusals int
	keys     [][]string
	tokens   []string
	batches  [][]string
	entered  chan struct{}
	watched  []*pb.JobEvent
	answer   *pb.InferResponse
	started  []*pb.StartUploadRequest
	offset   int64
}

func (f *faulty) refuse(ctx context.Context) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	sent, _ := metadata.FromIncomingContext(ctx)
	f.keys = append(f.keys, sent.Get(keyHeader))
	f.tokens = append(f.tokens, sent.Get("authorization")...)
	if f.refusals--; f.refusals < 0 {
		return nil
	}
	told, err := status.New(codes.Unavailable, "full").WithDetails(
		&pb.ErrorObject{Code: "service.overloaded", Message: "Every queue is full.", Status: 503, RequestId: "r1"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)},
	)
	if err != nil {
		return err
	}
	return told.Err()
}

func (f *faulty) CreateJob(ctx context.Context, _ *pb.CreateJobRequest) (*pb.CreateJobResponse, error) {
	return &pb.CreateJobResponse{}, f.refuse(ctx)
}

func (f *faulty) GetHealth(ctx context.Context, _ *pb.GetHealthRequest) (*pb.GetHealthResponse, error) {
	return &pb.GetHealthResponse{}, f.refuse(ctx)
}

func (f *faulty) GetLimits(context.Context, *pb.GetLimitsRequest) (*pb.Limits, error) {
	return &pb.Limits{MaxBatchSize: 3}, nil
}

// InferBatch answers one image and breaks, as often as there are refusals; then it answers all.
func (f *faulty) InferBatch(request *pb.InferBatchRequest, stream grpc.ServerStreamingServer[pb.BatchEvent]) error {
	var ids []string
	for _, input := range request.Inputs {
		ids = append(ids, input.Id)
	}
	f.mutex.Lock()
	f.batches = append(f.batches, ids)
	f.mutex.Unlock()
	for _, id := range ids {
		if err := stream.Send(&pb.BatchEvent{Event: pb.StreamEvent_item, Item: &pb.BatchItem{Id: id}}); err != nil {
			return err
		}
		if err := f.refuse(stream.Context()); err != nil {
			return err
		}
	}
	return stream.Send(&pb.BatchEvent{Event: pb.StreamEvent_done})
}

// ListJobs says that it was called, and does not answer.
func (f *faulty) ListJobs(ctx context.Context, _ *pb.ListJobsRequest) (*pb.ListJobsResponse, error) {
	close(f.entered)
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *faulty) Infer(context.Context, *pb.InferRequest) (*pb.InferResponse, error) {
	return f.answer, nil
}

// WatchJob always breaks, after the events that it has.
func (f *faulty) WatchJob(_ *pb.WatchJobRequest, stream grpc.ServerStreamingServer[pb.JobEvent]) error {
	for _, event := range f.watched {
		if err := stream.Send(event); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "cut")
}

// GetJob tells of the end when there are no refusals any more.
func (f *faulty) GetJob(context.Context, *pb.GetJobRequest) (*pb.Job, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.refusals--; f.refusals < 0 {
		return &pb.Job{Status: pb.Job_succeeded}, nil
	}
	return &pb.Job{Status: pb.Job_running}, nil
}

// against starts the service and returns a client of it on a clock of its own, with what that slept.
func against(t *testing.T, service *faulty, options ...Option) (*Client, *[]time.Duration) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterJobServiceServer(server, service)
	pb.RegisterHealthServiceServer(server, service)
	pb.RegisterInferenceServiceServer(server, service)
	pb.RegisterLimitServiceServer(server, service)
	pb.RegisterUploadServiceServer(server, service)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	client, err := NewClient(listener.Addr().String(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	policy, slept := clocked()
	client.retries = policy
	return client, slept
}

func TestEveryAttemptHasTheSameKeyAndWaitsAsTold(t *testing.T) {
	service := &faulty{refusals: 2}
	client, slept := against(t, service, WithToken("abc\n"))
	if _, err := client.Jobs.CreateJob(context.Background(), &pb.CreateJobRequest{}); err != nil {
		t.Fatal(err)
	}
	first := service.keys[0]
	if len(service.keys) != 3 || len(first) != 1 || first[0] == "" {
		t.Fatal(service.keys)
	}
	for _, keys := range service.keys {
		if !slices.Equal(keys, first) {
			t.Fatal(service.keys)
		}
	}
	if !slices.Equal(*slept, seconds64(3.5, 4)) {
		t.Fatal(*slept)
	}
	if service.tokens[0] != "Bearer abc" {
		t.Fatal(service.tokens)
	}
}

func TestTwoCallsHaveTwoKeysAndReadsHaveNone(t *testing.T) {
	service := &faulty{}
	client, _ := against(t, service)
	ctx := context.Background()
	for range 2 {
		if _, err := client.Jobs.CreateJob(ctx, &pb.CreateJobRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Health.GetHealth(ctx, &pb.GetHealthRequest{}); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(service.keys[0], service.keys[1]) || len(service.keys[2]) != 0 {
		t.Fatal(service.keys)
	}
}

func TestAKeyOfTheCallersOwnIsSentOrRefusedHere(t *testing.T) {
	service := &faulty{}
	client, _ := against(t, service)
	_, err := client.Jobs.CreateJob(WithIdempotencyKey(context.Background(), "mine"), &pb.CreateJobRequest{})
	if err != nil || service.keys[0][0] != "mine" {
		t.Fatal(err, service.keys)
	}
	for _, key := range []string{"", "a b", "ü", string(make([]byte, 256))} {
		_, err := client.Jobs.CreateJob(WithIdempotencyKey(context.Background(), key), &pb.CreateJobRequest{})
		if failed, ok := err.(*Error); !ok || failed.Code != "idempotency.key_invalid" {
			t.Error(key, err)
		}
	}
}

func TestAnErrorCarriesWhatTheServiceSaid(t *testing.T) {
	client, _ := against(t, &faulty{refusals: 1000})
	client.retries.sleep = func(context.Context, time.Duration) error { return context.DeadlineExceeded }
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, err := client.Health.GetHealth(ctx, &pb.GetHealthRequest{})
	failed, ok := err.(*Error)
	if !ok || failed.Code != "service.overloaded" || failed.Status != 503 || failed.RequestID != "r1" {
		t.Fatal(err)
	}
	if failed.RetryAfter != 3*time.Second {
		t.Fatal(failed.RetryAfter)
	}
}

func TestAClosedClientFailsAtOnce(t *testing.T) {
	service := &faulty{}
	client, slept := against(t, service)
	ctx := context.Background()
	if _, err := client.Health.GetHealth(ctx, &pb.GetHealthRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	_, unary := client.Health.GetHealth(ctx, &pb.GetHealthRequest{})
	_, waited := client.WaitJob(ctx, "job_1", nil)
	_, opened := client.Jobs.WatchJob(ctx, &pb.WatchJobRequest{})
	for _, err := range []error{unary, waited, opened} {
		if err != errClosed {
			t.Error(err)
		}
	}
	if len(*slept) != 0 || len(service.keys) != 1 {
		t.Fatal(*slept, service.keys)
	}
}

func TestClosingEndsWhatWaitsForAnotherAttempt(t *testing.T) {
	for name, call := range map[string]func(context.Context, *Client) error{
		"unary": func(ctx context.Context, client *Client) error {
			_, err := client.Health.GetHealth(ctx, &pb.GetHealthRequest{})
			return err
		},
		"job": func(ctx context.Context, client *Client) error {
			_, err := client.WaitJob(ctx, "job_1", nil)
			return err
		},
		"batch": func(ctx context.Context, client *Client) error {
			for _, err := range client.InferBatch(ctx, &pb.InferBatchRequest{Inputs: []*pb.BatchInput{{Id: "a"}, {Id: "b"}}}) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"upload": func(ctx context.Context, client *Client) error {
			_, err := client.Upload(ctx, inPieces, nil)
			return err
		},
	} {
		client, _ := against(t, &faulty{refusals: 1000})
		client.retries.sleep = func(ctx context.Context, _ time.Duration) error {
			_ = client.Close()
			return sleep(ctx, time.Hour)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := call(ctx, client); err != errClosed {
			t.Error(name, err)
		}
	}
}

func TestClosingEndsCallsUnderWay(t *testing.T) {
	service := &faulty{entered: make(chan struct{})}
	client, slept := against(t, service)
	go func() {
		<-service.entered
		_ = client.Close()
	}()
	if _, err := client.Jobs.ListJobs(context.Background(), &pb.ListJobsRequest{}); err != errClosed || len(*slept) != 0 {
		t.Fatal(err, *slept)
	}
}

func TestABrokenBatchSendsAgainWhatHasNoAnswer(t *testing.T) {
	service := &faulty{refusals: 1}
	client, slept := against(t, service)
	ask := &pb.InferBatchRequest{Model: "shapes"}
	for _, id := range []string{"a", "b", "c", "d"} {
		ask.Inputs = append(ask.Inputs, &pb.BatchInput{Id: id})
	}
	var ids []string
	for item, err := range client.InferBatch(context.Background(), ask) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, item.Id)
	}
	if !slices.Equal(ids, []string{"a", "b", "c", "d"}) || !slices.Equal(*slept, seconds64(3.5)) {
		t.Fatal(ids, *slept)
	}
	sent := [][]string{{"a", "b", "c"}, {"b", "c"}, {"d"}}
	if !slices.EqualFunc(service.batches, sent, slices.Equal) {
		t.Fatal(service.batches)
	}
}

func TestAJobIsAskedAboutWhereNoStreamComesThrough(t *testing.T) {
	client, slept := against(t, &faulty{refusals: 2})
	var told []pb.Job_Status
	job, err := client.WaitJob(context.Background(), "job_1", func(job *pb.Job) { told = append(told, job.Status) })
	if err != nil || job.Status != pb.Job_succeeded {
		t.Fatal(job, err)
	}
	if !slices.Equal(told, []pb.Job_Status{pb.Job_running, pb.Job_running, pb.Job_succeeded}) {
		t.Fatal(told)
	}
	if !slices.Equal(*slept, seconds64(0.5, 1, 2)) {
		t.Fatal(*slept)
	}
}

func TestOnlyEventsOfTheJobBeginThePausesAgain(t *testing.T) {
	draining := &pb.JobEvent{
		Event: pb.StreamEvent_error, Error: &pb.ErrorObject{Code: "service.overloaded", Message: "Draining.", Status: 503},
	}
	status := &pb.JobEvent{Event: pb.StreamEvent_status, Job: &pb.Job{Status: pb.Job_running}}
	for _, one := range []struct {
		events []*pb.JobEvent
		slept  []time.Duration
	}{
		{[]*pb.JobEvent{draining}, seconds64(0.5, 1, 2, 4)},
		{[]*pb.JobEvent{status, draining}, seconds64(0.5, 0.5, 0.5, 0.5)},
	} {
		client, slept := against(t, &faulty{refusals: 3, watched: one.events})
		if _, err := client.WaitJob(context.Background(), "job_1", nil); err != nil || !slices.Equal(*slept, one.slept) {
			t.Error(err, *slept)
		}
	}
}

func TestAnAnswerThatSaysNothingIsNone(t *testing.T) {
	for _, one := range []struct {
		answer *pb.InferResponse
		code   string
	}{
		{&pb.InferResponse{}, CodeAnswerInvalid},
		{&pb.InferResponse{ModelVersion: "1"}, ""}, // No class was probable enough.
	} {
		client, _ := against(t, &faulty{answer: one.answer})
		_, err := client.Infer(context.Background(), Bytes([]byte("image")), &pb.InferRequest{})
		var failed *Error
		if errors.As(err, &failed) != (one.code != "") || failed != nil && failed.Code != one.code {
			t.Error(one.answer, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]struct {
		target    string
		encrypted bool
	}{
		"grpc://10.0.0.1":       {"10.0.0.1:50051", false},
		"grpcs://a.example":     {"a.example:443", true},
		"http://127.0.0.1:8080": {"127.0.0.1:8080", false},
		"https://a.example/":    {"a.example:443", true},
		"localhost:50051":       {"localhost:50051", false},
		"[::1]:50051":           {"[::1]:50051", false},
		"a.example:50051":       {"a.example:50051", true},
	} {
		target, encrypted, err := parseAddress(address)
		if err != nil || target != want.target || encrypted != want.encrypted {
			t.Error(address, target, encrypted, err)
		}
	}
	for _, address := range []string{"", "ftp://a", "http://a/v1", "http://u:p@a", "http://", "http://a?b"} {
		if _, _, err := parseAddress(address); err == nil {
			t.Error(address)
		}
	}
}
