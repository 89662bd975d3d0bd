package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	pb "sigs.k8s.io/gateway-api-conformance-images/echo-basic/grpcechoserver"
)

// call is what is asked for on the command line. Names of headers are sent as they are written.
type call struct {
	url     *url.URL
	method  string
	headers map[string][]string
	timeout time.Duration
}

// answer is one response: body has lines without their ends.
type answer struct {
	status  int
	headers map[string][]string
	body    []string
}

func request(arguments []string, to io.Writer) error {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	method := flags.String("method", http.MethodGet, "of HTTP")
	count := flags.Int("count", 1, "number of requests")
	timeout := flags.Duration("timeout", 5*time.Second, "of each request")
	var headers list
	flags.Var(&headers, "H", "KEY:VALUE")
	// The suite gives the URL first, where package flag stops.
	var urls []string
	for len(arguments) > 0 {
		if err := flags.Parse(arguments); err != nil {
			return err
		}
		if arguments = flags.Args(); len(arguments) > 0 {
			urls, arguments = append(urls, arguments[0]), arguments[1:]
		}
	}
	if len(urls) != 1 || *count < 1 {
		return fmt.Errorf("usage: client URL [--method=GET] [-H KEY:VALUE]… [--count=1] [--timeout=5s]")
	}
	target, err := url.Parse(urls[0])
	if err != nil {
		return err
	}
	asked := call{url: target, method: *method, headers: map[string][]string{}, timeout: *timeout}
	for _, header := range headers {
		key, value, found := strings.Cut(header, ":")
		if !found {
			return fmt.Errorf("-H %q: KEY:VALUE", header)
		}
		asked.headers[key] = append(asked.headers[key], strings.TrimSpace(value))
	}
	send, end, err := asked.sender()
	if err != nil {
		return err
	}
	defer end()
	for number := range *count {
		received, err := send()
		if err != nil {
			return err
		}
		if err := print(to, number, target, received); err != nil {
			return err
		}
	}
	return nil
}

// sender is what performs this request once, and what closes its connections.
func (c *call) sender() (func() (*answer, error), func(), error) {
	switch c.url.Scheme {
	case "http", "https":
		return c.overHTTP()
	case "grpc":
		return c.overGRPC()
	}
	return nil, nil, fmt.Errorf("%s: http://, https:// or grpc://", c.url)
}

func (c *call) overHTTP() (func() (*answer, error), func(), error) {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		// No header that was not asked for.
		DisableCompression: true,
	}
	client := http.Client{
		Transport:     transport,
		Timeout:       c.timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	send := func() (*answer, error) {
		request, err := http.NewRequest(c.method, c.url.String(), nil)
		if err != nil {
			return nil, err
		}
		for key, values := range c.headers {
			if strings.EqualFold(key, "Host") {
				request.Host = values[0]
				continue
			}
			request.Header[key] = values
		}
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		body, err := lines(response.Body)
		return &answer{response.StatusCode, response.Header, body}, err
	}
	return send, transport.CloseIdleConnections, nil
}

func (c *call) overGRPC() (func() (*answer, error), func(), error) {
	// passthrough: the name's address is dialled, as by HTTP, and one connection made.
	connection, err := grpc.NewClient("passthrough:///"+c.url.Host,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig(), grpc.WithNoProxy())
	if err != nil {
		return nil, nil, err
	}
	echo := pb.NewGrpcEchoClient(connection)
	send := func() (*answer, error) {
		ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
		defer cancel()
		for key, values := range c.headers {
			for _, value := range values {
				ctx = metadata.AppendToOutgoingContext(ctx, key, value)
			}
		}
		var headers metadata.MD
		response, err := echo.Echo(ctx, &pb.EchoRequest{}, grpc.Header(&headers))
		if err != nil {
			return nil, err
		}
		seen := response.GetAssertions()
		body := []string{
			"Hostname=" + seen.GetContext().GetPod(),
			"Host=" + seen.GetAuthority(),
			"URL=" + seen.GetFullyQualifiedMethod(),
		}
		for _, header := range seen.GetHeaders() {
			body = append(body, "RequestHeader="+header.GetKey()+":"+header.GetValue())
		}
		// The suite knows statuses of HTTP only; others than OK are errors.
		return &answer{http.StatusOK, headers, body}, nil
	}
	return send, func() { _ = connection.Close() }, nil
}

func lines(from io.Reader) ([]string, error) {
	var all []string
	scanner := bufio.NewScanner(io.LimitReader(from, 1<<20))
	for scanner.Scan() {
		all = append(all, scanner.Text())
	}
	return all, scanner.Err()
}

// print ends with a blank line, so a body's own blank lines are left out.
func print(to io.Writer, number int, target *url.URL, received *answer) error {
	out := bufio.NewWriter(to)
	fmt.Fprintf(out, "[%d] Url=%s\n[%d] StatusCode=%d\n", number, target, number, received.status)
	for _, key := range keys(received.headers) {
		for _, value := range received.headers[key] {
			fmt.Fprintf(out, "[%d] ResponseHeader=%s:%s\n", number, key, value)
		}
	}
	for _, line := range slices.DeleteFunc(received.body, func(line string) bool { return strings.TrimSpace(line) == "" }) {
		fmt.Fprintf(out, "[%d body] %s\n", number, line)
	}
	fmt.Fprintln(out)
	return out.Flush()
}

func keys(headers map[string][]string) []string {
	var names []string
	for name := range headers {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
