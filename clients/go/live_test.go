//go:build live

// Calls a running service; `make test-clients` starts one.

package camserve

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "camserve.example/go/gen/camserve/v1"
)

func set(t *testing.T, name string) string {
	value := os.Getenv(name)
	if value == "" {
		t.Fatal("no ", name, ": make test-clients sets it")
	}
	return value
}

func picture(t *testing.T, name string) string { return filepath.Join(set(t, "CAM_PICTURES"), name) }

func connected(t *testing.T, address string, options ...Option) *Client {
	client, err := NewClient(address, append([]Option{WithToken(set(t, "CAM_TOKEN"))}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// eachWay runs a test at the service's own port and through the edge.
func eachWay(t *testing.T, test func(*testing.T, *Client)) {
	t.Run("direct", func(t *testing.T) { test(t, connected(t, "grpc://"+set(t, "CAM_GRPC"))) })
	t.Run("edge", func(t *testing.T) { test(t, connected(t, set(t, "CAM_EDGE"))) })
}

func TestInferenceOfASmallImageAndOfAStreamedOne(t *testing.T) {
	eachWay(t, func(t *testing.T, client *Client) {
		ask := &pb.InferRequest{Model: "shapes", GradCam: &pb.GradCAMOptions{Enabled: true}}
		answer, err := client.Infer(context.Background(), File(picture(t, "photo.jpg")), ask)
		if err != nil || answer.Classes[0].Id != "star" {
			t.Fatal(err, answer)
		}
		data, err := client.HeatmapData(context.Background(), answer.Heatmap)
		if err != nil || !bytes.HasPrefix(data, []byte("\x89PNG")) {
			t.Fatal(err)
		}
		answer, err = client.Infer(context.Background(), File(picture(t, "large.png")), ask)
		if err != nil || answer.JobId != nil || len(answer.Classes) == 0 {
			t.Fatal(err, answer)
		}
	})
}

func TestAnImageAbove20MBBecomesAJobThatIsWaitedFor(t *testing.T) {
	client := connected(t, set(t, "CAM_EDGE"))
	ask := &pb.InferRequest{Model: "shapes", GradCam: &pb.GradCAMOptions{Enabled: true}}
	answer, err := client.Infer(context.Background(), File(picture(t, "slide.tif")), ask)
	if err != nil || answer.JobId == nil || len(answer.Classes) == 0 || answer.Image.Width != 4100 {
		t.Fatal(err, answer)
	}
	if data, err := client.HeatmapData(context.Background(), answer.Heatmap); err != nil || len(data) == 0 {
		t.Fatal(err)
	}
}

func TestACallUnderAKeyOfOnesOwnIsAnsweredAgain(t *testing.T) {
	client := connected(t, set(t, "CAM_EDGE"))
	for _, name := range []string{"photo.jpg", "slide.tif"} {
		ctx := WithIdempotencyKey(context.Background(), rand.Text())
		var ids []string
		for range 2 {
			answer, err := client.Infer(ctx, File(picture(t, name)), &pb.InferRequest{Model: "shapes"})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, answer.RequestId)
		}
		if ids[0] != ids[1] {
			t.Fatal(ids)
		}
		file, err := os.Open(picture(t, name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		information, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		size := information.Size()
		_, err = client.Infer(ctx, Reader(otherEnd{file, size - 1}, size), &pb.InferRequest{Model: "shapes"})
		if codeOf(err) != "idempotency.key_reused" {
			t.Fatal(name, err)
		}
	}
}

// otherEnd is an image whose last byte is another one.
type otherEnd struct {
	io.ReaderAt
	last int64
}

func (o otherEnd) ReadAt(data []byte, offset int64) (int, error) {
	count, err := o.ReaderAt.ReadAt(data, offset)
	if offset <= o.last && o.last < offset+int64(count) {
		data[o.last-offset] ^= 1
	}
	return count, err
}

func TestACallerWhoLeavesEndsAnUpload(t *testing.T) {
	client := connected(t, set(t, "CAM_EDGE"))
	ctx, cancel := context.WithCancel(context.Background())
	_, err := client.Upload(ctx, File(picture(t, "slide.tif")), func(Progress) { cancel() })
	if !errors.Is(err, context.Canceled) || codeOf(err) != "client.closed" {
		t.Fatal(err)
	}
	late, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	if _, err := client.Health.GetHealth(late, &pb.GetHealthRequest{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestAnUploadNeedsLittleMemory(t *testing.T) {
	client := connected(t, set(t, "CAM_EDGE"))
	ctx := context.Background()
	if _, err := client.Upload(ctx, File(picture(t, "photo.jpg")), nil); err != nil {
		t.Fatal(err)
	}
	before := peak(t)
	var last Progress
	told := 0
	stored, err := client.Upload(ctx, File(picture(t, "slide.tif")), func(p Progress) {
		if p.SentBytes < last.SentBytes {
			t.Error("went back to", p.SentBytes)
		}
		last, told = p, told+1
	})
	if err != nil || stored.SizeBytes != last.TotalBytes || last.SentBytes != last.TotalBytes || told < 100 {
		t.Fatal(err, last, told)
	}
	if grown := peak(t) - before; grown > last.TotalBytes/2 {
		t.Fatal("the process grew by ", grown)
	}
	if _, err := client.Uploads.DeleteUpload(ctx, &pb.DeleteUploadRequest{StorageId: stored.StorageId}); err != nil {
		t.Fatal(err)
	}
}

// peak returns the most memory that this process has had, in bytes.
func peak(t *testing.T) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

func TestAnUploadGoesOnWhereTheConnectionBroke(t *testing.T) {
	edge, err := url.Parse(set(t, "CAM_EDGE"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := newProxy(t, edge.Host)
	client := connected(t, "grpc://"+proxy.address, WithBackoff(Backoff{50 * time.Millisecond, 2, 200 * time.Millisecond}))
	data, err := os.ReadFile(picture(t, "slide.tif"))
	if err != nil {
		t.Fatal(err)
	}
	var reached Progress
	broken := false
	stored, err := client.Upload(context.Background(), Bytes(data), func(p Progress) {
		reached = p
		if !broken && p.SentBytes > 20<<20 {
			broken = true
			proxy.cut()
		}
	})
	if err != nil || !broken || stored.StorageId != reached.StorageID {
		t.Fatal(err, broken, stored, reached)
	}
	if sent := proxy.sent.Load(); sent > int64(len(data))+2*pieceBytes {
		t.Fatal("sent again from the beginning: ", sent)
	}
}

// proxy hands bytes to the service and back, until it cuts.
type proxy struct {
	address string
	sent    atomic.Int64
	mutex   sync.Mutex
	open    []net.Conn
}

func newProxy(t *testing.T, target string) *proxy {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	made := &proxy{address: listener.Addr().String()}
	t.Cleanup(func() { _ = listener.Close(); made.cut() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", target)
			if err != nil {
				_ = from.Close()
				continue
			}
			made.mutex.Lock()
			made.open = append(made.open, from, to)
			made.mutex.Unlock()
			go func() { _, _ = io.Copy(io.MultiWriter(to, made), from); _ = to.Close() }()
			go func() { _, _ = io.Copy(from, to); _ = from.Close() }()
		}
	}()
	return made
}

func (p *proxy) Write(data []byte) (int, error) {
	p.sent.Add(int64(len(data)))
	return len(data), nil
}

func (p *proxy) cut() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, connection := range p.open {
		_ = connection.Close()
	}
	p.open = nil
}

func TestABatchTellsOfEveryImageOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, client *Client) {
		ctx := context.Background()
		image, err := client.Input(ctx, File(picture(t, "photo.jpg")))
		if err != nil {
			t.Fatal(err)
		}
		ask := &pb.InferBatchRequest{Model: "shapes"}
		for number := range 70 {
			ask.Inputs = append(ask.Inputs, &pb.BatchInput{Id: strconv.Itoa(number), Image: image})
		}
		none := &pb.ImageInput{Source: &pb.ImageInput_Bytes{Bytes: []byte("nothing")}}
		ask.Inputs = append(ask.Inputs, &pb.BatchInput{Id: "none", Image: none})
		seen := map[string]bool{}
		for item, err := range client.InferBatch(ctx, ask) {
			if err != nil {
				t.Fatal(err)
			}
			if failed := AsError(item.Error); (failed != nil) != (item.Id == "none") || seen[item.Id] {
				t.Error(item)
			}
			seen[item.Id] = true
		}
		if len(seen) != 71 {
			t.Fatal(len(seen))
		}
		for range client.InferBatch(ctx, ask) {
			break // Whoever has enough leaves.
		}
		ask.Inputs = append(ask.Inputs, ask.Inputs[0])
		for _, err := range client.InferBatch(ctx, ask) {
			if codeOf(err) != "batch.duplicate_id" {
				t.Fatal(err)
			}
		}
	})
}

func TestAJobUnderAKeyIsMadeOnceAndFollowedToItsEnd(t *testing.T) {
	eachWay(t, func(t *testing.T, client *Client) {
		ctx := context.Background()
		image, err := client.Input(ctx, File(picture(t, "photo.jpg")))
		if err != nil {
			t.Fatal(err)
		}
		large, err := client.Input(ctx, File(picture(t, "large.png")))
		if err != nil || large.GetStorageId() == "" {
			t.Fatal(err, large)
		}
		request := &pb.CreateJobRequest{
			Model: "shapes", Inputs: []*pb.BatchInput{{Id: "a", Image: image}, {Id: "b", Image: large}},
		}
		key := WithIdempotencyKey(ctx, "no space")
		if _, err := client.Jobs.CreateJob(key, request); codeOf(err) != "idempotency.key_invalid" {
			t.Fatal(err)
		}
		key = WithIdempotencyKey(ctx, rand.Text())
		first, err := client.Jobs.CreateJob(key, request)
		if err != nil {
			t.Fatal(err)
		}
		again, err := client.Jobs.CreateJob(key, request)
		if err != nil || again.JobId != first.JobId {
			t.Fatal(err)
		}
		changes := 0
		job, err := client.WaitJob(ctx, first.JobId, func(*pb.Job) { changes++ })
		if err != nil || job.Status != pb.Job_succeeded || changes == 0 {
			t.Fatal(err, job)
		}
		var ids []string
		for item, err := range client.JobResults(ctx, first.JobId) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, item.Id)
		}
		if strings.Join(ids, " ") != "a b" {
			t.Fatal(ids)
		}
	})
}

func TestRefusalsAreOneKindOfError(t *testing.T) {
	eachWay(t, func(t *testing.T, client *Client) {
		ctx := context.Background()
		for code, refused := range map[string]func() error{
			"model.not_found": func() error {
				_, err := client.Infer(ctx, File(picture(t, "photo.jpg")), &pb.InferRequest{Model: "none"})
				return err
			},
			"media.unsupported": func() error {
				_, err := client.Upload(ctx, Bytes([]byte("GIF89a, and then nothing")), nil)
				return err
			},
			"image.invalid_format": func() error {
				_, err := client.Infer(ctx, Bytes(make([]byte, 9_000_000)), &pb.InferRequest{Model: "shapes"})
				return err
			},
			"job.not_found": func() error {
				_, err := client.WaitJob(ctx, "job_0000000000000000000000", nil)
				return err
			},
		} {
			var failed *Error
			if err := refused(); !errors.As(err, &failed) || failed.Code != code || failed.Status < 400 || failed.RequestID == "" {
				t.Errorf("%s: %#v", code, err)
			}
		}
		_, err := client.Infer(ctx, File("/nowhere"), &pb.InferRequest{Model: "shapes"})
		if codeOf(err) != CodeImageUnreadable || !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

// TestEncryptedConnections needs a service of its own.
func TestEncryptedConnections(t *testing.T) {
	authority, err := os.ReadFile(set(t, "CAM_CA"))
	if err != nil {
		t.Fatal(err)
	}
	known := x509.NewCertPool()
	known.AppendCertsFromPEM(authority)
	for _, address := range strings.Fields(set(t, "CAM_ENCRYPTED")) {
		client := connected(t, address, WithTLS(&tls.Config{RootCAs: known}))
		if _, err := client.Models.ListModels(context.Background(), &pb.ListModelsRequest{}); err != nil {
			t.Error(address, err)
		}
		soon := Backoff{50 * time.Millisecond, 2, 200 * time.Millisecond}
		stranger := connected(t, address, WithTimeout(time.Second), WithBackoff(soon))
		_, err := stranger.Models.ListModels(context.Background(), &pb.ListModelsRequest{})
		if code := codeOf(err); code != CodeConnectionFailed && code != "timeout.exceeded" {
			t.Error(address, err)
		}
	}
}

func TestWhoHasNoTokenIsTold(t *testing.T) {
	for _, address := range []string{set(t, "CAM_EDGE"), "grpc://" + set(t, "CAM_GRPC")} {
		client := connected(t, address, WithToken("none"))
		_, err := client.Limits.GetLimits(context.Background(), &pb.GetLimitsRequest{})
		if codeOf(err) != "auth.invalid_token" {
			t.Error(address, err)
		}
	}
}
