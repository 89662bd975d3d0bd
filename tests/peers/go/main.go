// Command peer is an independent peer for tests of a mesh: servers and clients of Go's own HTTP and
// of grpc-go, without any support for proxies.
//
//	peer serve ADDRESS       HTTP/1.1 and HTTP/2 without TLS on port 8080, gRPC on port 8081
//	peer call KIND ADDRESS   every check of http1, http2 or grpc against a server; grpc-by-envoy where
//	                         one of the proxies between is an Envoy
//	peer resolve SERVER ip|srv NAME   what the DNS server says, by Go's own resolver, a line a record
//
// The first check that fails ends a call with status 1 and prints what came instead.
package main

import (
	"fmt"
	"os"
)

type check struct {
	name string
	run  func() error
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "serve":
		return serve(arguments[1])
	case len(arguments) == 3 && arguments[0] == "call":
		return call(arguments[1], arguments[2])
	case len(arguments) == 4 && arguments[0] == "resolve":
		return resolve(arguments[1], arguments[2], arguments[3])
	}
	return fmt.Errorf("usage: peer serve ADDRESS | peer call http1|http2|grpc|grpc-by-envoy ADDRESS | peer resolve SERVER ip|srv NAME")
}

func serve(address string) error {
	failed := make(chan error)
	go func() { failed <- serveWeb(address + ":8080") }()
	go func() { failed <- serveRPC(address + ":8081") }()
	return <-failed
}

func call(kind, address string) error {
	var checks []check
	switch kind {
	case "http1", "http2":
		checks = webChecks(kind, address)
	case "grpc", "grpc-by-envoy":
		all, err := rpcChecks(address, kind == "grpc-by-envoy")
		if err != nil {
			return err
		}
		checks = all
	default:
		return fmt.Errorf("unknown kind %q", kind)
	}
	for _, check := range checks {
		if err := check.run(); err != nil {
			return fmt.Errorf("%s, %s: %w", kind, check.name, err)
		}
		fmt.Println(kind, check.name)
	}
	return nil
}
