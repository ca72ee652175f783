// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store/etcd"
	"github.com/portcullis-firewall/portcullis/tests/internal/etcdcluster"
)

var (
	simulated = flag.Int("hosts", 60, "how many hosts are simulated")
	rate      = flag.Int("start", 200, "how many of them start in a second")
	quiet     = flag.Duration("quiet", 2*time.Second, "for how long nothing happens")
	members   = flag.Int("members", 3, "how many members of etcd there are")
	lease     = flag.Duration("ttl", 0, "how long hosts stay present that are gone; 0: as long as those of a fleet")
	large     = flag.Int("size", 20_000, "how many bytes a policy has")
)

// Many hosts, with the client and the verification of real ones and no datapath, run what is published: how long does it
// take, and what does it cost etcd? With -hosts 10000 it is the measurement of docs/fleet-etcd.md.
func TestScale(t *testing.T) {
	c := etcdcluster.Start(t, *members)
	p := newPublisher(t, c.Open(t))
	p.filler = strings.Repeat("# what a policy of this size has\n", *large/33)
	p.publish(t)
	m := &meter{t: t, cluster: c}

	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var hosts []*host
	var took arrivals
	m.begin()
	for i := range *simulated {
		if i > 0 && i%*rate == 0 {
			time.Sleep(time.Second)
		}
		name := fmt.Sprintf("h%05d", i)
		o := c.User(t, name)
		o.TTL = *lease
		s, err := etcd.Open(ctx, c.URL(), o)
		if err != nil {
			t.Fatal(err)
		}
		h := &host{name: name, store: s, keys: p.keys(), tells: true}
		hosts = append(hosts, h)
		running.Go(func() {
			h.run(ctx, took.note)
			s.Close()
		})
	}
	within := time.Minute + time.Duration(*simulated)*50*time.Millisecond
	converge(t, hosts, 1, within)
	m.end("start")

	m.begin()
	time.Sleep(*quiet)
	m.end("quiet")

	var all []time.Duration
	for range 3 {
		serial := p.serial + 1
		took.reset(serial)
		m.begin()
		p.publish(t)
		converge(t, hosts, serial, within)
		m.end("publish")
		each := took.times(p.pointed)
		t.Logf("bundle %d: %s", serial, quantiles(each))
		all = append(all, each...)
		time.Sleep(*quiet / 3)
	}
	t.Logf("%d hosts, %d members, a bundle of %d bytes: %s", *simulated, *members, *large, quantiles(all))

	// All hosts lose their member at once, and all come back.
	m.begin()
	for _, member := range c.Members {
		member.Kill()
	}
	time.Sleep(2 * time.Second)
	for _, member := range c.Members {
		member.Start(t)
	}
	c.Wait(t)
	began := time.Now()
	m.restarted()
	took.reset(p.serial + 1)
	p.publish(t)
	converge(t, hosts, p.serial, within)
	m.end("return")
	t.Logf("after the cluster was killed: the last host is back %s after it answers: %s", time.Since(began).Round(time.Millisecond), quantiles(took.times(p.pointed)))
	if lost := m.failures(hosts); lost > 0 {
		t.Logf("%d times a host could not reach the store", lost)
	}
}

// arrivals notes when hosts have a bundle.
type arrivals struct {
	mu     sync.Mutex
	serial uint64
	at     []time.Time
}

func (a *arrivals) reset(serial uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serial, a.at = serial, nil
}

func (a *arrivals) note(serial uint64) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if serial == a.serial {
		a.at = append(a.at, now)
	}
}

// times returns how long hosts took from a moment on, the fastest first.
func (a *arrivals) times(from time.Time) (times []time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.at {
		times = append(times, at.Sub(from))
	}
	return times
}

func quantiles(times []time.Duration) string {
	if len(times) == 0 {
		return "nobody"
	}
	slices.Sort(times)
	of := func(q float64) time.Duration {
		return times[min(int(q*float64(len(times))), len(times)-1)].Round(time.Millisecond)
	}
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, last %s", of(0.5), of(0.9), of(0.99), of(1))
}

// meter reads what the members of a cluster use.
type meter struct {
	t       *testing.T
	cluster *etcdcluster.Cluster
	began   time.Time
	cpu     time.Duration
	own     time.Duration
}

func (m *meter) begin() {
	m.began, m.cpu, m.own = time.Now(), m.used(), cpuOf(m.t, os.Getpid())
}

// restarted forgets what the members used that are gone.
func (m *meter) restarted() { m.cpu = 0 }

func (m *meter) end(phase string) {
	m.t.Helper()
	took := time.Since(m.began)
	var memory, connections []string
	for _, member := range m.cluster.Members {
		memory = append(memory, fmt.Sprintf("%d MB", memoryOf(m.t, member.PID())>>20))
		connections = append(connections, strconv.Itoa(connectionsOf(m.t, member.PID())))
	}
	m.t.Logf("%-8s %8s: etcd %s of CPU, the hosts %s; etcd has %s of memory, and %s connections", phase, took.Round(time.Millisecond),
		(m.used() - m.cpu).Round(10*time.Millisecond), (cpuOf(m.t, os.Getpid()) - m.own).Round(10*time.Millisecond),
		strings.Join(memory, ", "), strings.Join(connections, ", "))
}

func (m *meter) used() (sum time.Duration) {
	for _, member := range m.cluster.Members {
		sum += cpuOf(m.t, member.PID())
	}
	return sum
}

func (m *meter) failures(hosts []*host) (sum int) {
	for _, h := range hosts {
		h.mu.Lock()
		sum += h.lost
		h.mu.Unlock()
	}
	return sum
}

// cpuOf returns how much processor time a process has used.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have blanks
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	const tick = 10 * time.Millisecond // USER_HZ is 100
	return time.Duration(user+system) * tick
}

// memoryOf returns how many bytes of a process are in memory.
func memoryOf(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.Atoi(strings.Fields(string(text))[1])
	return pages * os.Getpagesize()
}

// connectionsOf returns how many clients are connected in the namespace of a process.
func connectionsOf(t *testing.T, pid int) (n int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		t.Fatal(err)
	}
	const port, established = ":094B", "01" // 2379
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], port) && f[3] == established {
			n++
		}
	}
	return n
}
