// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// enterFlows enters n flows with the program that the filter has for that.
func enterFlows(t *testing.T, l *lab.Lab, n int) {
	t.Helper()
	program, err := ebpf.LoadPinnedProgram(filepath.Join(l.PinPath, loader.Schema, "policy", "enter"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	now := clock(t, l)
	for i := range n {
		seed := &bpf.FirewallSeed{Entry: bpf.FirewallEntry{
			Key: bpf.FirewallFlowKey{
				Protocol: unix.IPPROTO_TCP, Family: 4, LocalPort: uint16(1024 + i%50_000), RemotePort: 443,
				Local:  [4]uint32{binary.NativeEndian.Uint32([]byte{192, 0, 2, 1})},
				Remote: [4]uint32{binary.NativeEndian.Uint32([]byte{198, byte(18 + i>>20), byte(i >> 10), byte(i >> 2)})},
			},
			Flow: bpf.FirewallFlow{Expires: now + 10_000_000, State: uint8(bpf.FirewallFlowStateFLOW_TCP_ESTABLISHED)},
		}}
		if _, err := program.Run(&ebpf.RunOptions{Context: seed}); err != nil {
			t.Fatal(err)
		}
	}
}

// The list of a million flows takes a command no more memory than a small host can spare.
func TestAMillionFlowsAreListedInLittleMemory(t *testing.T) {
	const flows, mostMemory = 1_000_000, 60 << 10 // kB
	l := lab.New(t)
	program := lab.Program(t)
	p := policy.Default()
	p.MaxFlows = 1 << 20
	up(t, l, loader.ModeTC, p)
	enterFlows(t, l, flows)
	for _, c := range []struct {
		args  []string
		count func(text []byte) bool // of what is printed, a piece for each flow
	}{
		{[]string{"flows"}, func(line []byte) bool { return bytes.HasPrefix(line, []byte("tcp ")) }},
		{[]string{"flows", "-o", "json"}, func(line []byte) bool { return bytes.Contains(line, []byte(`"protocol": "tcp"`)) }},
		{[]string{"status"}, nil},
	} {
		cmd := l.Server.Command(program, append([]string{"--pin-path", l.PinPath}, c.args...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		highest := highWater(cmd.Process.Pid)
		listed := 0
		lines := bufio.NewReaderSize(out, 1<<16)
		for {
			line, err := lines.ReadSlice('\n')
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.count != nil && c.count(line) {
				listed++
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %v", c.args, err)
		}
		peak := highest()
		t.Logf("%v: %d MB", c.args, peak>>10)
		if peak == 0 || peak > mostMemory {
			t.Errorf("%v took %d kB, and %d is the most", c.args, peak, mostMemory)
		}
		if c.count != nil && (listed > flows+10 || listed < flows*99/100) {
			t.Errorf("%v listed %d flows of %d", c.args, listed, flows)
		}
	}
}

// highWater watches the memory of a process until the result is asked for, which is the most that it took, in kB. What
// the kernel says of a process that has ended begins with the memory of the test, from which it was forked.
func highWater(pid int) (highest func() int) {
	stop, peak := make(chan struct{}), make(chan int)
	pattern := regexp.MustCompile(`(?s)^Name:\s+portcullis\n.*VmHWM:\s+(\d+) kB`)
	go func() {
		most := 0
		for {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // which may have ended
			if m := pattern.FindSubmatch(text); m != nil {
				kB, _ := strconv.Atoi(string(m[1]))
				most = max(most, kB)
			}
			select {
			case <-stop:
				peak <- most
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() int {
		close(stop)
		return <-peak
	}
}
