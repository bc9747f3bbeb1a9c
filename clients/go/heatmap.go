package camserve

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"

	pb "camserve.example/go/gen/camserve/v1"
)

var objectID = regexp.MustCompile(`^obj_[0-9A-Za-z]{16,40}$`)

// HeatmapData returns the file of a heatmap, PNG or NPY as its Format says, wherever it is. It fails with
// signature.expired when its link has ended.
func (c *Client) HeatmapData(ctx context.Context, heatmap *pb.Heatmap) ([]byte, error) {
	if heatmap.GetDataB64() != nil {
		return heatmap.GetDataB64(), nil
	}
	if heatmap.GetUrl() == "" {
		return nil, &Error{Code: CodeAnswerInvalid, Message: "The heatmap has no data."}
	}
	ctx, cancel := c.bounded(ctx, c.timeout)
	defer cancel()
	link, err := url.Parse(heatmap.GetUrl())
	if err != nil {
		return nil, &Error{Code: CodeAnswerInvalid, Message: "The link is none.", cause: err}
	}
	read := func() ([]byte, error) { return readLink(ctx, heatmap.GetUrl()) }
	if id, token := path.Base(link.Path), link.Query().Get("token"); objectID.MatchString(id) && token != "" {
		// Over the connection that there is: nothing says that the link's own address can be reached.
		read = func() ([]byte, error) { return c.download(ctx, id, token) }
	}
	var data []byte
	err = c.retries.run(ctx, func() (err error) {
		data, err = read()
		return err
	})
	return data, err
}

func (c *Client) download(ctx context.Context, id, token string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Objects.Download(ctx, &pb.DownloadRequest{ObjectId: id, Token: token})
	if err != nil {
		return nil, err
	}
	var data bytes.Buffer
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			return data.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		data.Write(part.GetData())
	}
}

// readLink reads from the object store itself, which is another server and hears nothing of the caller's token.
func readLink(ctx context.Context, link string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, link, nil)
	if err != nil {
		return nil, &Error{Code: CodeAnswerInvalid, Message: "The link is none.", cause: err}
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, &Error{Code: CodeConnectionFailed, Message: "The object store cannot be reached.", cause: err}
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, &Error{Code: CodeConnectionFailed, Message: "The connection broke.", cause: err}
	}
	switch answer.StatusCode {
	case http.StatusOK:
		return data, nil
	case http.StatusForbidden:
		return nil, &Error{Code: "signature.expired", Message: "The link is too old.", Status: answer.StatusCode}
	case http.StatusNotFound:
		return nil, &Error{Code: "object.not_found", Message: "There is no such object.", Status: answer.StatusCode}
	}
	failed := &Error{Code: "upstream.failed", Message: "The object store answered " + answer.Status + ".", Status: 502}
	failed.RetryAfter, _ = wait(answer.Header.Values("Retry-After"))
	return nil, failed
}
