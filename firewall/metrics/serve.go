// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"
)

// Address is where metrics are served: a host and a port, or the path of a socket.
type Address struct {
	network, address string
}

const unixPrefix = "unix:"

// ParseAddress reads an address: 127.0.0.1:9734, [::1]:9734 or unix:/run/portcullis/metrics.sock. One that others than this
// host reach is refused unless anywhere is true: what is counted tells a stranger what is open, and to whom.
func ParseAddress(text string, anywhere bool) (Address, error) {
	if path, ok := strings.CutPrefix(text, unixPrefix); ok {
		if !filepath.IsAbs(path) {
			return Address{}, fmt.Errorf("metrics address %q: the path of a socket has to be absolute: unix:/run/portcullis/metrics.sock", text)
		}
		if longest := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > longest {
			return Address{}, fmt.Errorf("metrics address %q: the path of a socket has %d bytes at most", text, longest)
		}
		return Address{"unix", filepath.Clean(path)}, nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil || at.Port() == 0 {
		return Address{}, fmt.Errorf("metrics address %q: write an address and a port, such as 127.0.0.1:9734, or unix:PATH", text)
	}
	if !at.Addr().Unmap().IsLoopback() && !anywhere {
		return Address{}, fmt.Errorf("metrics address %s: others than this host reach it, and would learn what is open and to whom: write 127.0.0.1:%d, or say --metrics-anywhere", at, at.Port())
	}
	return Address{"tcp", at.String()}, nil
}

// String returns the address as ParseAddress reads it.
func (a Address) String() string {
	if a.network == "unix" {
		return unixPrefix + a.address
	}
	return a.address
}

// listen opens the address. The socket of a process that has ended is replaced, and no other file.
func (a Address) listen(ctx context.Context) (net.Listener, error) {
	config := net.ListenConfig{}
	if a.network != "unix" {
		return config.Listen(ctx, a.network, a.address)
	}
	info, err := os.Lstat(a.address)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("%s is %s, and not a socket: move it away, or name another path", a.address, kindOf(info.Mode()))
	default:
		if c, err := net.DialTimeout("unix", a.address, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("listen on %s: %w", a.address, unix.EADDRINUSE)
		}
		_ = os.Remove(a.address) // or listening says why not
	}
	config.Control = func(_, _ string, c syscall.RawConn) error { // the socket is never there for others
		var changed error
		err := c.Control(func(fd uintptr) { changed = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, changed)
	}
	l, err := config.Listen(ctx, "unix", a.address)
	if err != nil {
		return nil, err
	}
	if err := openToGroup(a.address); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// openToGroup lets root, and whoever may enter the directory by the socket's group, connect to a socket. Whoever may write to the
// directory may have put something else in its place by now.
func openToGroup(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK || stat.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("somebody has replaced %s: name a path in a directory that others cannot change", path)
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o660)
}

// kindOf says what a file is.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a regular file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	}
	return "a device"
}

const (
	retryTime   = 5 * time.Second
	requestTime = 2 * time.Second // for a request to come whole, which Prometheus writes at once
	idleTime    = 5 * time.Second
	answerTime  = 10 * time.Second // for an answer to be read
	bufferSize  = 128 << 10        // of a connection, in the kernel: one that nobody reads is to take little

	mostConnections = 512 // so many that one who opens them as fast as he can closes none before its request is read
)

// handler answers scrapes.
func handler(c *Collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return newPages(promhttp.HandlerFor(gatherer{registry, c}, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError,
		DisableCompression: true, // which takes longer than all else, for a reader on the same host
	}))
}

// Serve serves the metrics until ctx ends. What keeps it from listening is told once, and tried again and again: the
// firewall does not depend on it.
func Serve(ctx context.Context, at Address, c *Collector, told func(error), listening func()) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", handler(c))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "Portcullis: /metrics")
	})
	last := ""
	for ctx.Err() == nil {
		l, err := at.listen(ctx)
		if err == nil {
			last = ""
			listening()
			err = serve(ctx, l, mux, func(number int) {
				told(fmt.Errorf("%d connections to the metrics at %s were closed to let others in: somebody opens more than the %d that are kept", number, at, mostConnections))
			})
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != last {
			last = err.Error()
			told(fmt.Errorf("metrics are not served at %s, which is tried again every %s: %w", at, retryTime, err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryTime):
		}
	}
}

// serve answers requests until ctx ends. It calls evicted, at most once a minute, where connections were closed to let others
// in.
func serve(ctx context.Context, l net.Listener, handler http.Handler, evicted func(number int)) error {
	server := &http.Server{
		Handler: answering(handler), ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: answerTime,
		IdleTimeout: idleTime, MaxHeaderBytes: 8 << 10, ConnContext: withConnection,
		ErrorLog: log.New(io.Discard, "", 0), // strangers could fill the journal
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(limit(l, mostConnections, evicted)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
