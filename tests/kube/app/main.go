// Command app is the one program in the images of the cluster tests: static, so that an image needs
// nothing beside it.
//
//	app pause                      what a pod's sandbox runs: reaps orphans until SIGTERM
//	app serve [-listen :8080] [-name NAME]         HTTP: / answers NAME, /healthz 200; ends in order on SIGTERM;
//	                               /work?ms=N answers after N ms of computing, /exit ends the process at once,
//	                               /readiness/fail and /readiness/pass say what /healthz answers from then on
//	app forward [-listen :15006] [-to 127.0.0.1:8080]   HTTP to that address, with a header Via: forward
//	app get [-timeout 5s] URL      one GET: status, header and body; exit status 1 unless it is 200
//	app load [-rate 50] [-timeout 5s] [-count N] [-without-input] URL   GET and POST in turn at that rate, over
//	                               kept connections, until N were sent, SIGTERM or the end of its input; then a
//	                               line of JSON: answered (also by pod), failed, and how failures read
//	app resolve NAME               the addresses of a name, a line each
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return fmt.Errorf("usage: app pause|serve|forward|get|load|resolve")
	}
	flags := flag.NewFlagSet(arguments[0], flag.ExitOnError)
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	listen := flags.String("listen", "", "address to listen at")
	name := flags.String("name", hostname, "what / answers")
	to := flags.String("to", "127.0.0.1:8080", "where requests go")
	timeout := flags.Duration("timeout", 5*time.Second, "for the whole request")
	rate := flags.Int("rate", 50, "requests a second")
	count := flags.Int("count", math.MaxInt, "requests at most")
	withoutInput := flags.Bool("without-input", false, "do not read the input; a container has none")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	switch arguments[0] {
	case "pause":
		pause()
		return nil
	case "serve":
		return serve(or(*listen, ":8080"), answer(*name, hostname))
	case "forward":
		return serve(or(*listen, ":15006"), forward(*to))
	case "get":
		return get(flags.Arg(0), *timeout)
	case "load":
		return load(flags.Arg(0), *rate, *count, *timeout, !*withoutInput)
	case "resolve":
		return resolve(flags.Arg(0))
	}
	return fmt.Errorf("unknown command %q", arguments[0])
}

func or(given, standard string) string {
	if given == "" {
		return standard
	}
	return given
}

// pause is process 1 of a pod that shares its PID namespace: orphans are reparented to it.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
		}
	}
}

// podHeader has the name of the pod that answers: its hostname.
const podHeader = "Pod"

func answer(name, pod string) http.Handler {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path, "from", r.RemoteAddr)
		w.Header().Set(podHeader, pod)
		fmt.Fprintln(w, name)
	}
	mux.HandleFunc("/", reply)
	mux.HandleFunc("/work", func(w http.ResponseWriter, r *http.Request) {
		ms, err := strconv.Atoi(r.URL.Query().Get("ms"))
		if err != nil || ms < 0 || ms > 1000 {
			http.Error(w, "ms: 0 to 1000", http.StatusBadRequest)
			return
		}
		for end := time.Now().Add(time.Duration(ms) * time.Millisecond); time.Now().Before(end); {
		}
		reply(w, r)
	})
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(1) })
	var unready atomic.Bool
	mux.HandleFunc("/readiness/fail", func(http.ResponseWriter, *http.Request) { unready.Store(true) })
	mux.HandleFunc("/readiness/pass", func(http.ResponseWriter, *http.Request) { unready.Store(false) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if unready.Load() {
			http.Error(w, "unready", http.StatusServiceUnavailable)
		}
	})
	return mux
}

func forward(to string) http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})
	proxy.ModifyResponse = func(response *http.Response) error {
		response.Header.Set("Via", "forward")
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	// Its own health endpoint: a start-up probe must not wait for the app, which starts after it.
	mux.HandleFunc("/forward/healthz", func(http.ResponseWriter, *http.Request) {})
	return mux
}

// serve ends when SIGTERM came and the requests under way are answered.
func serve(listen string, handler http.Handler) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	server := &http.Server{Addr: listen, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	fmt.Println("serving at", listen)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	fmt.Println("ending in order")
	patience, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return server.Shutdown(patience)
}

func get(target string, timeout time.Duration) error {
	client := http.Client{Timeout: timeout}
	response, err := client.Get(target)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	fmt.Println(response.StatusCode)
	if err := response.Header.Write(os.Stdout); err != nil {
		return err
	}
	fmt.Println()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", target, response.Status)
	}
	return nil
}

// tally counts requests by outcome. Failures are few and have the same texts, which are counted.
type tally struct {
	lock     sync.Mutex
	Answered int            `json:"answered"`
	By       map[string]int `json:"by"`
	Failed   int            `json:"failed"`
	Reasons  map[string]int `json:"reasons"`
}

func (t *tally) add(by string, err error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if err == nil {
		t.Answered++
		t.By[by]++
		return
	}
	t.Failed++
	if _, known := t.Reasons[err.Error()]; known || len(t.Reasons) < 20 {
		t.Reasons[err.Error()]++
	}
}

// load sends requests at a rate, whether earlier ones are answered or not, at most 256 at a time.
func load(target string, rate, count int, timeout time.Duration, untilInputEnds bool) error {
	if rate < 1 || rate > 10_000 {
		return fmt.Errorf("-rate is %d; 1 to 10000", rate)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if untilInputEnds {
		go func() {
			defer stop()
			_, _ = io.Copy(io.Discard, os.Stdin)
		}()
	}
	client := http.Client{Timeout: timeout, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	seen := tally{By: map[string]int{}, Reasons: map[string]int{}}
	var under sync.WaitGroup
	places := make(chan struct{}, 256)
	ticks := time.NewTicker(time.Second / time.Duration(rate))
	defer ticks.Stop()
	for number := 0; number < count && ctx.Err() == nil; number++ {
		// What is not idempotent is never sent again by the client itself.
		method := [2]string{http.MethodGet, http.MethodPost}[number%2]
		select {
		case <-ctx.Done():
		case <-ticks.C:
			places <- struct{}{}
			under.Add(1)
			go func() {
				defer func() { <-places; under.Done() }()
				seen.add(once(&client, method, target))
			}()
		}
	}
	under.Wait()
	return json.NewEncoder(os.Stdout).Encode(&seen)
}

// once returns which pod answered.
func once(client *http.Client, method, target string) (string, error) {
	var content io.Reader
	if method == http.MethodPost {
		content = strings.NewReader("some content")
	}
	request, err := http.NewRequest(method, target, content)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s: %s", method, response.Status, body)
	}
	return response.Header.Get(podHeader), nil
}

func resolve(name string) error {
	addresses, err := net.DefaultResolver.LookupHost(context.Background(), name)
	if err != nil {
		return err
	}
	sort.Strings(addresses)
	for _, address := range addresses {
		fmt.Println(address)
	}
	return nil
}
