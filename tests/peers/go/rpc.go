package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// raw carries bytes as they are: no messages have to be generated.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}
func (raw) Name() string { return "raw" }

// cancellations counts the calls whose client went away.
var cancellations atomic.Int64

func serveRPC(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.MaxRecvMsgSize(2*large))
	stream := func(name string, handler grpc.StreamHandler) grpc.StreamDesc {
		return grpc.StreamDesc{StreamName: name, Handler: handler, ServerStreams: true, ClientStreams: true}
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "peer.Echo",
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			stream("Echo", echoMessages),
			stream("Count", countMessages),
			stream("Fail", fail),
			stream("Hang", hang),
			stream("Cancellations", tellCancellations),
		},
	}, struct{}{})
	return server.Serve(listener)
}

func echoMessages(_ any, stream grpc.ServerStream) error {
	came, _ := metadata.FromIncomingContext(stream.Context())
	stream.SetHeader(metadata.Pairs("x-head", "first", "x-came-bin", string(came.Get("x-sent-bin")[0])))
	stream.SetTrailer(metadata.Pairs("x-tail", "last"))
	for {
		var message []byte
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
}

// countMessages answers a stream of messages with their number.
func countMessages(_ any, stream grpc.ServerStream) error {
	for count := 0; ; count++ {
		var message []byte
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			answer := []byte(fmt.Sprint(count))
			return stream.SendMsg(&answer)
		} else if err != nil {
			return err
		}
	}
}

func fail(_ any, stream grpc.ServerStream) error {
	return status.Error(codes.FailedPrecondition, "anyam, 100 % \u2713")
}

func hang(_ any, stream grpc.ServerStream) error {
	started := []byte("started")
	if err := stream.SendMsg(&started); err != nil {
		return err
	}
	<-stream.Context().Done()
	cancellations.Add(1)
	return stream.Context().Err()
}

func tellCancellations(_ any, stream grpc.ServerStream) error {
	answer := []byte(fmt.Sprint(cancellations.Load()))
	return stream.SendMsg(&answer)
}

type rpc struct {
	conn *grpc.ClientConn
	// An Envoy ends a stream that the server reset with INTERNAL_ERROR, whatever the server's code.
	envoy bool
}

func rpcChecks(address string, envoy bool) ([]check, error) {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(2*large)))
	if err != nil {
		return nil, err
	}
	r := rpc{conn, envoy}
	return []check{
		{"unary with metadata both ways", r.unary},
		{"a large message", r.large},
		{"many messages one way", r.upload},
		{"messages back and forth", r.chat},
		{"many calls at once", r.many},
		{"an error and its message", r.failure},
		{"a method that is not there", r.unknown},
		{"a deadline", r.deadline},
		{"a cancellation reaches the server", r.cancel},
	}, nil
}

func (r rpc) open(ctx context.Context, method string) (grpc.ClientStream, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-sent-bin", "\x00\xff")
	description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	return r.conn.NewStream(ctx, description, "/peer.Echo/"+method)
}

func soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// echo sends one message on a stream of its own and gives the stream at its end.
func (r rpc) echo(message []byte) (grpc.ClientStream, error) {
	ctx, cancel := soon()
	defer cancel()
	stream, err := r.open(ctx, "Echo")
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&message); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var back []byte
	if err := stream.RecvMsg(&back); err != nil {
		return nil, err
	}
	if !bytes.Equal(message, back) {
		return nil, fmt.Errorf("%d other bytes came back", len(back))
	}
	if err := stream.RecvMsg(&back); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("no end but %v", err)
	}
	return stream, nil
}

func (r rpc) unary() error {
	stream, err := r.echo([]byte("hello"))
	if err != nil {
		return err
	}
	head, err := stream.Header()
	if err != nil {
		return err
	}
	tail := stream.Trailer()
	if fmt.Sprint(head.Get("x-head"), head.Get("x-came-bin"), tail.Get("x-tail")) != "[first] [\x00\xff] [last]" {
		return fmt.Errorf("header %v, trailer %v", head, tail)
	}
	return nil
}

func (r rpc) large() error {
	_, err := r.echo(pattern(large))
	return err
}

func (r rpc) upload() error {
	ctx, cancel := soon()
	defer cancel()
	stream, err := r.open(ctx, "Count")
	if err != nil {
		return err
	}
	message := pattern(100)
	for range 5000 {
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
	stream.CloseSend()
	var count []byte
	if err := stream.RecvMsg(&count); err != nil {
		return err
	}
	if string(count) != "5000" {
		return fmt.Errorf("%s arrived", count)
	}
	return nil
}

func (r rpc) chat() error {
	ctx, cancel := soon()
	defer cancel()
	stream, err := r.open(ctx, "Echo")
	if err != nil {
		return err
	}
	for number := range 300 {
		sent := []byte(fmt.Sprint(number))
		if err := stream.SendMsg(&sent); err != nil {
			return err
		}
		var back []byte
		if err := stream.RecvMsg(&back); err != nil {
			return err
		}
		if !bytes.Equal(sent, back) {
			return fmt.Errorf("%s came back for %s", back, sent)
		}
	}
	return stream.CloseSend()
}

func (r rpc) many() error {
	failed := make(chan error)
	const calls = 200
	for number := range calls {
		go func() {
			_, err := r.echo(pattern(number * 100))
			failed <- err
		}()
	}
	var all error
	for range calls {
		all = errors.Join(all, <-failed)
	}
	return all
}

// answered is how a call of a method without messages ends.
func (r rpc) answered(method string, wait time.Duration) (*status.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	stream, err := r.open(ctx, method)
	if err != nil {
		return status.Convert(err), nil
	}
	stream.CloseSend()
	for {
		var message []byte
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			return nil, errors.New("it ended well")
		} else if err != nil {
			return status.Convert(err), nil
		}
	}
}

func (r rpc) failure() error {
	end, err := r.answered("Fail", patience)
	if err != nil {
		return err
	}
	if end.Code() != codes.FailedPrecondition || end.Message() != "anyam, 100 % \u2713" {
		return end.Err()
	}
	return nil
}

func (r rpc) unknown() error {
	end, err := r.answered("Nothing", patience)
	if err != nil {
		return err
	}
	if end.Code() != codes.Unimplemented {
		return end.Err()
	}
	return nil
}

func (r rpc) deadline() error {
	end, err := r.answered("Hang", 300*time.Millisecond)
	if err != nil {
		return err
	}
	if end.Code() != codes.DeadlineExceeded && !(r.envoy && end.Code() == codes.Internal) {
		return end.Err()
	}
	return nil
}

// cancel waits until the server has counted one call more that was given up.
func (r rpc) cancel() error {
	before, err := r.cancellations()
	if err != nil {
		return err
	}
	ctx, cancel := soon()
	defer cancel()
	stream, err := r.open(ctx, "Hang")
	if err != nil {
		return err
	}
	var started []byte
	if err := stream.RecvMsg(&started); err != nil {
		return err
	}
	cancel()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		now, err := r.cancellations()
		if err != nil {
			return err
		}
		if now != before {
			return nil
		}
	}
	return errors.New("the server never noticed")
}

func (r rpc) cancellations() (string, error) {
	ctx, cancel := soon()
	defer cancel()
	stream, err := r.open(ctx, "Cancellations")
	if err != nil {
		return "", err
	}
	stream.CloseSend()
	var count []byte
	err = stream.RecvMsg(&count)
	return string(count), err
}
