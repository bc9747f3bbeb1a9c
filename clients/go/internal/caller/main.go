// Caller makes calls of a running service as its standard input says; `python -m benchmarks.clients` measures it
// meanwhile.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	camserve "camserve.example/go"
	pb "camserve.example/go/gen/camserve/v1"
)

const atOnce = 32

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// run does what each line says, and answers it with a line.
func run() error {
	address, token := os.Getenv("CAM_ADDRESS"), os.Getenv("CAM_TOKEN")
	picture, err := os.ReadFile(os.Getenv("CAM_PICTURE"))
	if err != nil {
		return err
	}
	client, err := camserve.NewClient(address, camserve.WithToken(token))
	if err != nil {
		return err
	}
	defer client.Close()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	stub := pb.NewInferenceServiceClient(connection)
	calls := map[string]func() error{
		"raw": func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, "idempotency-key", rand.Text())
			request := ask()
			request.Image = &pb.ImageInput{Source: &pb.ImageInput_Bytes{Bytes: picture}}
			_, err := stub.Infer(ctx, request)
			return err
		},
		"client": func() error {
			_, err := client.Infer(context.Background(), camserve.Bytes(picture), ask())
			return err
		},
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		work, argument, _ := strings.Cut(lines.Text(), " ")
		if work == "upload" {
			stored, err := client.Upload(context.Background(), camserve.File(argument), nil)
			if err != nil {
				return err
			}
			fmt.Println(stored.GetStorageId())
			continue
		}
		count, err := strconv.ParseInt(argument, 10, 64)
		if err != nil {
			return err
		}
		if err := repeat(calls[work], count); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return lines.Err()
}

func ask() *pb.InferRequest {
	return &pb.InferRequest{
		Model:    "shapes",
		GradCam:  &pb.GradCAMOptions{Enabled: true},
		Response: &pb.ResponseOptions{Heatmap: "inline"},
	}
}

// repeat makes count calls, 32 at once, and returns the last failure.
func repeat(call func() error, count int64) error {
	var made atomic.Int64
	var failed atomic.Value
	var callers sync.WaitGroup
	for range atOnce {
		callers.Go(func() {
			for made.Add(1) <= count {
				if err := call(); err != nil {
					failed.Store(err)
				}
			}
		})
	}
	callers.Wait()
	err, _ := failed.Load().(error)
	return err
}
