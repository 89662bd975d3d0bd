// Command echo stands in for the image echo-advanced in the Gateway API's mesh suite, which cannot be
// had where these tests run: servers that answer with what they received, and a client that the suite
// runs in their pods. One program, in which it is called by says what it does:
//
//	server [--port=8080]… [--tls=8443]… [--grpc=7070]… [--tcp=9090]… [--crt=FILE] [--key=FILE]
//	    HTTP/1.1 and HTTP/2 at each --port, with TLS at those that --tls names too; gRPC and TCP. The
//	    ports above without any. Ends in order on SIGTERM.
//	client URL [--method=GET] [-H KEY:VALUE]… [--count=1] [--timeout=5s]
//	    http://, https:// or grpc://; requests one after the other, over kept connections. Redirects
//	    are not followed. Exit status 1 unless each was answered, with whatever status of HTTP; with OK
//	    for gRPC.
//
// What the client prints is what sigs.k8s.io/gateway-api/conformance/utils/echo parses: lines of
// Field=value, those of the body after "[0 body] ", others after "[0] "; a blank line ends a response.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	program := filepath.Base(os.Args[0])
	var err error
	if program == "client" {
		err = request(os.Args[1:], os.Stdout)
	} else {
		err = serve(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
}

// list is a flag that can be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func (l *list) or(standard string) []string {
	if len(*l) == 0 {
		return []string{standard}
	}
	return *l
}
