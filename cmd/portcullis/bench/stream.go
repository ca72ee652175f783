// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Throughput through a real TCP stack: between two hosts whose devices are as the kernel makes them.

const (
	iperfPort   = 5201
	requestPort = openPort
	requestSize = 64
)

var streamCounts = []int{1, 8}

// streamSubjects lists who is measured: one that passes everything, in the mode that has one, and what can be meant for
// a host that talks TCP.
func (b *bench) streamSubjects() []*kind {
	return b.chosen(keyPass, keyPortcullis, keyTC, keyIptables, keyNft, keyNone)
}

// chosen returns those of the subjects that are to be measured.
func (b *bench) chosen(keys ...string) (out []*kind) {
	for i := range b.kinds {
		if k := &b.kinds[i]; slices.Contains(keys, k.key) {
			out = append(out, k)
		}
	}
	return out
}

// streamRules let in what is sent and asked.
var streamRules = rules{protocol: unix.IPPROTO_TCP, ports: []uint16{openPort, iperfPort}}

// onStands sets each subject up on a stand of its own and calls work for each in turn, rounds times.
func (b *bench) onStands(subjects []*kind, r rules, rounds int, begin func(*stand) (end func(), err error), work func(*kind, *stand) error) (err error) {
	var stands []*stand
	defer func() {
		for _, s := range slices.Backward(stands) {
			err = errors.Join(err, s.close())
		}
	}()
	for _, k := range subjects {
		b.progress.step("setting up " + k.title)
		s, err := newStand(false)
		if err != nil {
			return err
		}
		stands = append(stands, s)
		subject := k.make()
		if err := s.inside.do(func() error { return subject.install(s, r) }); err != nil {
			return fmt.Errorf("%s: %w", k.title, err)
		}
		s.undo = append(s.undo, func() error { return s.inside.do(func() error { return subject.remove(s) }) })
		end, err := begin(s)
		if err != nil {
			return err
		}
		s.undo = append(s.undo, func() error { end(); return nil })
	}
	for round := range rounds {
		for n := range subjects {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			at := (n + round) % len(subjects)
			if err := work(subjects[at], stands[at]); err != nil {
				return fmt.Errorf("%s: %w", subjects[at].title, err)
			}
		}
	}
	return nil
}

// throughput measures bulk TCP with iperf3, from outside to an open port.
func (b *bench) throughput(subjects []*kind) error {
	if why := installed("iperf3")(); why != "" {
		b.report.leaveOut("Bulk TCP", why)
		return nil
	}
	return b.onStands(subjects, streamRules, b.options.Rounds, serveIperf, func(k *kind, s *stand) error {
		for _, n := range streamCounts {
			w := Work{Key: fmt.Sprintf("stream-%d", n), Title: "Bulk TCP, " + count(n, "stream"), Unit: Gigabits, Baseline: keyNone}
			b.progress.step(w.Title + ": " + k.title)
			var rate float64
			err := s.outside.do(func() (err error) {
				rate, err = iperf(n, b.options.Stream)
				return err
			})
			if err != nil {
				return err
			}
			b.value(w, k.key, k.title, rate/1e9)
		}
		return nil
	})
}

func serveIperf(s *stand) (end func(), err error) {
	cmd := exec.Command("iperf3", "-s", "-p", strconv.Itoa(iperfPort))
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	if err := s.inside.do(cmd.Start); err != nil {
		return nil, err
	}
	end = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	for range 100 {
		if s.outside.do(func() error { return knock(iperfPort) }) == nil {
			return end, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	end()
	return nil, errors.New("iperf3 does not begin to listen")
}

// knock reports whether somebody listens.
func knock(port int) error {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(insideAddr.String(), strconv.Itoa(port)), time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

// shortStream is what a run sends that is meant to take less than the second that is iperf3's shortest.
const shortStream = "32M"

// iperf returns the bits a second that arrived.
func iperf(streams int, long time.Duration) (float64, error) {
	args := []string{"-c", insideAddr.String(), "-p", strconv.Itoa(iperfPort), "-P", strconv.Itoa(streams), "-J"}
	if outside, inside, ok := twoCPUs(); ok {
		args = append(args, "-A", fmt.Sprintf("%d,%d", outside, inside))
	}
	if long < time.Second {
		args = append(args, "-n", shortStream)
	} else {
		args = append(args, "-t", strconv.Itoa(int(long.Seconds())))
	}
	var out string
	var err error
	for range tries { // a server that has just ended a test refuses the next one for a moment
		if out, err = command("", "iperf3", args...); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return 0, err
	}
	var result struct {
		End struct {
			Sum struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return 0, fmt.Errorf("read what iperf3 says: %w", err)
	}
	if result.End.Sum.Rate == 0 {
		return 0, errors.New("iperf3: nothing arrived")
	}
	return result.End.Sum.Rate, nil
}

// shorter is how much shorter than others the rounds of connections are, and how much more there are: what else the
// machine does comes and goes within a second.
const shorter = 4

// connections measures how many times a second a connection is made, asked one thing and closed, one after the other.
func (b *bench) connections(subjects []*kind) error {
	w := Work{Key: "connections", Title: "Connect, request, close", Unit: Connections, Baseline: keyNone}
	return b.onStands(subjects, streamRules, shorter*b.options.Rounds, serveRequests, func(k *kind, s *stand) error {
		b.progress.step(w.Title + ": " + k.title)
		var n int
		start := time.Now()
		err := s.outside.do(func() error {
			return onCPU(false, func() (err error) {
				n, err = request(b.options.Stream / shorter)
				return err
			})
		})
		if err != nil {
			return err
		}
		b.value(w, k.key, k.title, float64(n)/time.Since(start).Seconds())
		return nil
	})
}

// serveRequests answers in the room inside, with plain system calls: the scheduler of Go would be measured too.
func serveRequests(s *stand) (end func(), err error) {
	var listener int
	err = s.inside.do(func() (err error) {
		if listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(listener, &unix.SockaddrInet4{Port: requestPort}); err != nil {
			return err
		}
		return unix.Listen(listener, 128)
	})
	if err != nil {
		return nil, err
	}
	wait := s.inside.begin(func() error {
		return onCPU(true, func() error {
			for {
				fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
				if err == unix.EINTR || err == unix.ECONNABORTED {
					continue
				}
				if err != nil {
					return err // it was shut down
				}
				answer(fd)
			}
		})
	})
	return func() {
		_ = unix.Shutdown(listener, unix.SHUT_RDWR)
		_ = wait()
		_ = unix.Close(listener)
	}, nil
}

func answer(fd int) {
	defer unix.Close(fd)
	var text [requestSize]byte
	if n, err := unix.Read(fd, text[:]); err == nil && n > 0 {
		_, _ = unix.Write(fd, text[:n])
	}
}

// request connects, asks, reads until the other side closes, and begins again.
func request(long time.Duration) (n int, err error) {
	for start := time.Now(); time.Since(start) < long; n++ {
		if err := requestOnce(); err != nil {
			return n, fmt.Errorf("request %d: %w", n+1, err)
		}
	}
	return n, nil
}

func requestOnce() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: requestPort, Addr: insideAddr.As4()}); err != nil {
		return err
	}
	var text [requestSize]byte
	if _, err := unix.Write(fd, text[:]); err != nil {
		return err
	}
	for got := 0; ; {
		n, err := unix.Read(fd, text[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if got += n; n == 0 {
			if got != requestSize {
				return fmt.Errorf("%d bytes were answered", got)
			}
			return nil
		}
	}
}
