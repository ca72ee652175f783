// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A user of the host who opens many connections keeps no scrape out.
func TestStrangersDoNotKeepScrapesOut(t *testing.T) {
	const half = "GET /metrics HTTP/1.1\r\nHost: x"
	for _, c := range []struct {
		name, request string
		strangers     int
		pause         time.Duration // before one opens another connection
		evicts        bool
	}{
		{"say nothing", "", 300, 10 * time.Millisecond, false},
		{"send half a request", half, 300, 10 * time.Millisecond, false},
		{"keep the connection after an answer", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 300, 10 * time.Millisecond, false},
		{"are more than are kept", half, mostConnections + 100, 100 * time.Millisecond, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := Address{"tcp", l.Addr().String()}
			l.Close()
			ctx, stop := context.WithCancel(context.Background())
			var mu sync.Mutex
			var told []string
			listening, served := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(served)
				Serve(ctx, address, New(sourceOf(t), "1", nil), func(err error) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, err.Error())
				}, func() { close(listening) })
			}()
			<-listening
			var strangers sync.WaitGroup
			opened := make(chan struct{}, c.strangers)
			for range c.strangers {
				strangers.Go(func() { beStranger(ctx, address.address, c.request, c.pause, opened) })
			}
			for range c.strangers {
				<-opened
			}
			for range 10 {
				client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
				response, err := client.Get("http://" + address.address + "/metrics")
				if err != nil {
					t.Error(err)
					break
				}
				body, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || !strings.Contains(string(body), "portcullis_up 1") {
					t.Errorf("%s, %v: %s", response.Status, err, body)
				}
				time.Sleep(50 * time.Millisecond)
			}
			stop()
			strangers.Wait()
			<-served
			if !c.evicts && len(told) == 0 {
				return
			}
			if len(told) != 1 || !strings.Contains(told[0], "were closed to let others in") {
				t.Errorf("told %q", told)
			}
		})
	}
}

// beStranger opens a connection, and another one whenever it is closed.
func beStranger(ctx context.Context, address, request string, pause time.Duration, opened chan<- struct{}) {
	for first := true; ctx.Err() == nil; first = false {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			io.WriteString(conn, request)
		}
		if first {
			opened <- struct{}{}
		}
		if err == nil {
			end := context.AfterFunc(ctx, func() { conn.Close() })
			io.Copy(io.Discard, conn)
			end()
			conn.Close()
		}
		time.Sleep(pause)
	}
}

// What is being answered is not closed for a new connection.
func TestAnswersAreNotEvicted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	begun, goOn := make(chan struct{}), make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(begun)
			<-goOn
			fmt.Fprint(w, "whole")
		}), func(int) {})
	}()
	answer := make(chan string, 1)
	go func() {
		response, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		b, _ := io.ReadAll(response.Body)
		answer <- string(b)
	}()
	<-begun
	for range 2 * mostConnections {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	time.Sleep(100 * time.Millisecond)
	close(goOn)
	if got := <-answer; got != "whole" {
		t.Errorf("answered %q", got)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestListenNamesWhatIsInTheWay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: file + " is a regular file, and not a socket", dir: dir + " is a directory, and not a socket"} {
		_, err := Address{"unix", path}.listen(context.Background())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if kept, err := os.ReadFile(file); err != nil || string(kept) != "kept" {
		t.Errorf("%q, %v", kept, err)
	}
}

// Only the socket is opened to its group, and nothing that somebody has put in its place.
func TestNothingElseIsOpenedToTheGroup(t *testing.T) {
	dir := t.TempDir()
	secret, link, socket := filepath.Join(dir, "secret"), filepath.Join(dir, "link"), filepath.Join(dir, "socket")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{secret, link} {
		if err := openToGroup(path); err == nil || !strings.Contains(err.Error(), "somebody has replaced "+path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has the mode %v, %v", info.Mode(), err)
	}
	l, err := Address{"unix", socket}.listen(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket has the mode %v, %v", info.Mode(), err)
	}
}
