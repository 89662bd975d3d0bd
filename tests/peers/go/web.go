package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"time"
)

const (
	// A body that no buffer on the way holds.
	large    = 12 << 20
	patience = 30 * time.Second
)

func serveWeb(address string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	// The digest of what was sent, in a trailer, and the sender's own trailer back.
	mux.HandleFunc("/digest", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Digest, X-Came")
		digest := sha256.New()
		io.Copy(digest, r.Body)
		io.WriteString(w, "read")
		w.Header().Set("X-Digest", hex.EncodeToString(digest.Sum(nil)))
		w.Header().Set("X-Came", r.Trailer.Get("X-Sent"))
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		io.WriteString(w, "final")
	})
	mux.HandleFunc("/refuse", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no", http.StatusExpectationFailed)
	})
	mux.HandleFunc("/upgrade", upgrade)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: address, Handler: mux, Protocols: protocols}
	return server.ListenAndServe()
}

// upgrade leaves HTTP for an echo, under the name that proxies let through.
func upgrade(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "websocket" {
		http.Error(w, "no upgrade", http.StatusBadRequest)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	io.Copy(conn, buffered)
}

func webChecks(kind, address string) []check {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(kind == "http1")
	protocols.SetUnencryptedHTTP2(kind == "http2")
	transport := &http.Transport{Protocols: protocols, ExpectContinueTimeout: patience, DisableCompression: true}
	web := &web{client: &http.Client{Transport: transport, Timeout: patience}, base: "http://" + address}
	checks := []check{
		{"get", web.get},
		{"head", web.head},
		{"large body with a length", web.known},
		{"large body without a length", web.unknown},
		{"trailers both ways", web.trailers},
		{"early hints", web.hints},
		{"expectation met", web.expect},
		{"expectation refused", web.refused},
		{"cancelled", web.cancelled},
	}
	if kind == "http1" {
		checks = append(checks, check{"upgrade", func() error { return upgraded(address) }})
	}
	return checks
}

type web struct {
	client *http.Client
	base   string
}

// do gives the answer and its whole body.
func (w *web) do(request *http.Request) (*http.Response, []byte, error) {
	response, err := w.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response, body, err
}

func (w *web) request(method, path string, body io.Reader) *http.Request {
	request, err := http.NewRequest(method, w.base+path, body)
	if err != nil {
		panic(err)
	}
	return request
}

func (w *web) get() error {
	response, body, err := w.do(w.request("GET", "/echo?a=%2F&b", nil))
	if err != nil {
		return err
	}
	if response.StatusCode != 200 || len(body) != 0 || response.Header.Get("X-Method") != "GET" {
		return fmt.Errorf("%v %q", response, body)
	}
	return nil
}

func (w *web) head() error {
	response, body, err := w.do(w.request("HEAD", "/echo", nil))
	if err != nil {
		return err
	}
	if response.StatusCode != 200 || len(body) != 0 || response.Header.Get("X-Method") != "HEAD" {
		return fmt.Errorf("%v %q", response, body)
	}
	return nil
}

// pattern is bytes that do not repeat where buffers do.
func pattern(length int) []byte {
	all := make([]byte, length)
	state := uint32(1)
	for i := range all {
		state = state*1664525 + 1013904223
		all[i] = byte(state >> 24)
	}
	return all
}

func (w *web) known() error {
	sent := pattern(large)
	response, body, err := w.do(w.request("POST", "/echo", bytes.NewReader(sent)))
	if err != nil {
		return err
	}
	if length := response.Header.Get("X-Length"); length != fmt.Sprint(large) {
		return fmt.Errorf("the server was told %s", length)
	}
	if !bytes.Equal(sent, body) {
		return fmt.Errorf("%d other bytes came back", len(body))
	}
	return nil
}

// streamed hides a reader's length.
type streamed struct{ io.Reader }

func (w *web) unknown() error {
	sent := pattern(large)
	response, body, err := w.do(w.request("POST", "/echo", streamed{bytes.NewReader(sent)}))
	if err != nil {
		return err
	}
	if length := response.Header.Get("X-Length"); length != "-1" {
		return fmt.Errorf("the server was told %s", length)
	}
	if !bytes.Equal(sent, body) {
		return fmt.Errorf("%d other bytes came back", len(body))
	}
	return nil
}

func (w *web) trailers() error {
	sent := pattern(1 << 20)
	request := w.request("POST", "/digest", streamed{bytes.NewReader(sent)})
	request.Trailer = http.Header{"X-Sent": {"at the end"}}
	response, body, err := w.do(request)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(sent)
	trailer := response.Trailer
	if string(body) != "read" || trailer.Get("X-Digest") != hex.EncodeToString(digest[:]) || trailer.Get("X-Came") != "at the end" {
		return fmt.Errorf("%q with trailers %v", body, trailer)
	}
	return nil
}

func (w *web) hints() error {
	var links []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		if code == http.StatusEarlyHints {
			links = append(links, header.Get("Link"))
		}
		return nil
	}}
	request := w.request("GET", "/hints", nil)
	response, body, err := w.do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		return err
	}
	if len(links) != 1 || links[0] != "</style.css>; rel=preload" || string(body) != "final" || response.Header.Get("Link") != "" {
		return fmt.Errorf("hints %v, then %q with %v", links, body, response.Header)
	}
	return nil
}

func (w *web) expect() error {
	request := w.request("POST", "/echo", strings.NewReader("after 100"))
	request.Header.Set("Expect", "100-continue")
	_, body, err := w.do(request)
	if err != nil {
		return err
	}
	if string(body) != "after 100" {
		return fmt.Errorf("%q", body)
	}
	return nil
}

func (w *web) refused() error {
	request := w.request("POST", "/refuse", bytes.NewReader(pattern(large)))
	request.Header.Set("Expect", "100-continue")
	response, _, err := w.do(request)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusExpectationFailed {
		return fmt.Errorf("%v", response)
	}
	// The connection, or another one, goes on.
	return w.get()
}

// cancelled gives a request up in the middle of its body; the next one is none the worse.
func (w *web) cancelled() error {
	context, cancel := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	go func() {
		writer.Write(pattern(1 << 20))
		cancel()
		writer.CloseWithError(context.Err())
	}()
	_, _, err := w.do(w.request("POST", "/echo", reader).WithContext(context))
	if !errors.Is(err, context.Err()) {
		return fmt.Errorf("not cancelled: %v", err)
	}
	return w.get()
}

func upgraded(address string) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /upgrade HTTP/1.1\r\nHost: peer\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Upgrade") != "websocket" {
		return fmt.Errorf("%v", response)
	}
	sent := pattern(1 << 20)
	go conn.Write(sent)
	back := make([]byte, len(sent))
	if _, err := io.ReadFull(reader, back); err != nil {
		return err
	}
	if !bytes.Equal(sent, back) {
		return errors.New("other bytes came back")
	}
	return nil
}
