package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	pb "sigs.k8s.io/gateway-api-conformance-images/echo-basic/grpcechoserver"
)

func client(t *testing.T, arguments ...string) string {
	t.Helper()
	var out strings.Builder
	if err := request(arguments, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func has(t *testing.T, output string, wanted ...string) {
	t.Helper()
	for _, line := range wanted {
		if !strings.Contains("\n"+output, "\n"+line+"\n") {
			t.Errorf("no line %q in:\n%s", line, output)
		}
	}
}

func TestHTTPRequestsAreAnsweredWithWhatArrived(t *testing.T) {
	server := httptest.NewServer(web("pod-1", "8080", nil).Handler)
	defer server.Close()
	output := client(t, server.URL+"/a?b=c", "--method=PUT", "-H", "x-lower:1:2", "-H", "Host:other", "--count=3")
	has(t, output, "[0] StatusCode=200", "[2 body] Hostname=pod-1", "[0 body] Method=PUT", "[0 body] URL=/a?b=c",
		"[0 body] Host=other", "[0 body] RequestHeader=X-Lower:1:2", "[0] ResponseHeader=Content-Type:text/plain")
	if sections := strings.Count(output, "\n\n"); sections != 3 {
		t.Errorf("%d responses that end with a blank line, of 3", sections)
	}
}

func TestNamesOfHeadersAreSentAsWritten(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	head := make(chan string, 1)
	go func() {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		defer connection.Close()
		buffer := make([]byte, 4096)
		read, _ := connection.Read(buffer)
		head <- string(buffer[:read])
		_, _ = connection.Write([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
	}()
	has(t, client(t, "http://"+listener.Addr().String(), "-H", "x-Mixed:v"), "[0] StatusCode=204")
	if received := <-head; !strings.Contains(received, "\r\nx-Mixed: v\r\n") {
		t.Errorf("received: %q", received)
	}
}

func TestEveryStatusIsAnAnswerAndRedirectsAreNotFollowed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		http.Error(w, "nothing\n\nhere", http.StatusNotFound)
	}))
	defer server.Close()
	has(t, client(t, server.URL+"/redirect"), "[0] StatusCode=307", "[0] ResponseHeader=Location:/elsewhere")
	output := client(t, server.URL+"/other")
	has(t, output, "[0] StatusCode=404", "[0 body] nothing", "[0 body] here")
	if sections := strings.Count(output, "\n\n"); sections != 1 {
		t.Errorf("%d responses, of 1:\n%s", sections, output)
	}
}

func TestGRPC(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterGrpcEchoServer(server, &grpcEcho{hostname: "pod-1"})
	go func() { _ = server.Serve(listener) }()
	output := client(t, "grpc://"+listener.Addr().String(), "-H", "X-Set:a", "-H", "x-set:b")
	has(t, output, "[0] StatusCode=200", "[0 body] Hostname=pod-1", "[0 body] RequestHeader=x-set:a", "[0 body] RequestHeader=x-set:b")
	server.Stop()
	if err := request([]string{"grpc://" + listener.Addr().String()}, nil); err == nil {
		t.Error("no error from a server that has ended")
	}
}
