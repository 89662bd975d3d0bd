package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	pb "sigs.k8s.io/gateway-api-conformance-images/echo-basic/grpcechoserver"
)

func serve(arguments []string) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	var ports, secure, grpcs, tcps list
	flags.Var(&ports, "port", "of HTTP")
	flags.Var(&secure, "tls", "of HTTP with TLS")
	flags.Var(&grpcs, "grpc", "of gRPC")
	flags.Var(&tcps, "tcp", "of TCP")
	crt := flags.String("crt", "", "certificate; one of its own where the file is missing")
	key := flags.String("key", "", "its key")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	certificate, err := certificate(*crt, *key, hostname)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	ended := make(chan error)
	var closers []func(context.Context)
	start := func(port string, run func(net.Listener) error, closer func(context.Context)) error {
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		closers = append(closers, closer)
		go func() {
			if err := run(listener); ctx.Err() == nil {
				ended <- fmt.Errorf("port %s: %w", port, err)
			}
		}()
		return nil
	}

	protected := secure.or("8443")
	plain := slices.DeleteFunc(slices.Clone(ports.or("8080")), func(port string) bool { return slices.Contains(protected, port) })
	var errs []error
	for _, port := range plain {
		server := web(hostname, port, nil)
		errs = append(errs, start(port, server.Serve, func(ctx context.Context) { _ = server.Shutdown(ctx) }))
	}
	for _, port := range protected {
		server := web(hostname, port, &tls.Config{Certificates: []tls.Certificate{*certificate}})
		run := func(listener net.Listener) error { return server.ServeTLS(listener, "", "") }
		errs = append(errs, start(port, run, func(ctx context.Context) { _ = server.Shutdown(ctx) }))
	}
	for _, port := range grpcs.or("7070") {
		server := grpc.NewServer()
		pb.RegisterGrpcEchoServer(server, &grpcEcho{hostname: hostname})
		errs = append(errs, start(port, server.Serve, func(context.Context) { server.GracefulStop() }))
	}
	for _, port := range tcps.or("9090") {
		run := func(listener net.Listener) error { return echoTCP(listener, hostname, port) }
		errs = append(errs, start(port, run, func(context.Context) {}))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// gRPC waits for its clients as long as they stay; the others stop at this time.
	patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	time.AfterFunc(6*time.Second, func() { os.Exit(0) })
	for _, closer := range closers {
		closer(patience)
	}
	return nil
}

func web(hostname, port string, secured *tls.Config) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		address, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "Hostname=%s\nServicePort=%s\nMethod=%s\nURL=%s\nHost=%s\nProto=%s\nIP=%s\n",
			hostname, port, r.Method, r.RequestURI, r.Host, r.Proto, address)
		if r.TLS != nil {
			fmt.Fprintf(w, "Alpn=%s\n", r.TLS.NegotiatedProtocol)
		}
		for _, key := range keys(r.Header) {
			for _, value := range r.Header[key] {
				fmt.Fprintf(w, "RequestHeader=%s:%s\n", key, value)
			}
		}
	}
	return &http.Server{
		Handler:           http.HandlerFunc(handler),
		TLSConfig:         secured,
		Protocols:         &protocols,
		ReadHeaderTimeout: 10 * time.Second,
	}
}

// grpcEcho is the suite's own service, for which it has clients too.
type grpcEcho struct {
	pb.UnimplementedGrpcEchoServer
	hostname string
}

func (e *grpcEcho) Echo(ctx context.Context, request *pb.EchoRequest) (*pb.EchoResponse, error) {
	method, _ := grpc.Method(ctx)
	received, _ := metadata.FromIncomingContext(ctx)
	seen := &pb.Assertions{FullyQualifiedMethod: method, Context: &pb.Context{Pod: e.hostname}}
	for _, key := range keys(received) {
		for _, value := range received[key] {
			if key == ":authority" {
				seen.Authority = value
				continue
			}
			seen.Headers = append(seen.Headers, &pb.Header{Key: key, Value: value})
		}
	}
	return &pb.EchoResponse{Assertions: seen, Request: request}, nil
}

// echoTCP answers the first bytes of a connection with the server's name, and sends all of them back.
func echoTCP(listener net.Listener, hostname, port string) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			buffer := make([]byte, 4096)
			read, err := connection.Read(buffer)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(connection, "StatusCode=200\nHostname=%s\nServicePort=%s\n", hostname, port); err != nil {
				return
			}
			if _, err := connection.Write(buffer[:read]); err == nil {
				_, _ = io.Copy(connection, connection)
			}
		}()
	}
}

// certificate is that of the files, or, where they are missing, one that is made now: the suite's
// manifests name files that are part of its image.
func certificate(crt, key, hostname string) (*tls.Certificate, error) {
	given, err := tls.LoadX509KeyPair(crt, key)
	if !errors.Is(err, fs.ErrNotExist) {
		return &given, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{hostname},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: private}, nil
}
