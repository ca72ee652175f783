// SPDX-License-Identifier: Apache-2.0

// Package metrics tests what the agent tells Prometheus, with a real one, and top in a real terminal.
package metrics

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// output is what a process prints, while it runs.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) await(t *testing.T, text string) {
	t.Helper()
	eventually(t, 15*time.Second, func() error {
		if !strings.Contains(o.String(), text) {
			return fmt.Errorf("%q is not in:\n%s", text, o)
		}
		return nil
	})
}

func eventually(t *testing.T, patience time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// run starts the agent on the server, until the test ends.
func run(t *testing.T, l *lab.Lab, policy string, args ...string) *output {
	t.Helper()
	path := filepath.Join(t.TempDir(), "portcullis.yaml")
	if err := os.WriteFile(path, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	out := &output{}
	cmd := l.Server.Command(lab.ProgramWithDaemon(t), append([]string{"--pin-path", l.PinPath, "--config", path, "run", "eth0"}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "STATE_DIRECTORY="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		l.Server.Command(lab.ProgramWithDaemon(t), "--pin-path", l.PinPath, "down").Run()
	})
	return out
}

// flood puts frames to a closed port and to port 9 on the wire, as many to each.
func flood(t *testing.T, l *lab.Lab, each int) {
	t.Helper()
	wire := l.Client.Wire(t, "eth0")
	mac, err := net.ParseMAC(strings.Fields(l.Server.IP(t, "-br", "link", "show", "eth0"))[2])
	if err != nil {
		t.Fatal(err)
	}
	for range each {
		for _, port := range []uint16{7, 9} {
			b := frame.Build(frame.Ethernet{Dst: frame.MAC(mac), Src: frame.MAC{2, 0, 0, 0, 0, 9}},
				frame.IPv4{Src: lab.ClientV4, Dst: lab.ServerV4}, frame.UDP{SrcPort: 4000, DstPort: port}, frame.Text("metrics"))
			if err := wire.Send(b); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// get reads a page from a server of the host.
func get(l *lab.Lab, network, address, path string) (body string, took time.Duration, err error) {
	err = l.Server.Try(func() error {
		conn, err := net.Dial(network, address) // by this thread, which is in the namespace
		if err != nil {
			return err
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		begin := time.Now()
		response, err := client.Get("http://portcullis" + path)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		b, err := io.ReadAll(response.Body)
		body, took = string(b), time.Since(begin)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", response.Status, b)
		}
		return err
	})
	return body, took, err
}

// value returns a metric by its name and labels, as they are written.
func value(page, series string) float64 {
	match := regexp.MustCompile("(?m)^" + regexp.QuoteMeta(series) + " (.*)$").FindStringSubmatch(page)
	if match == nil {
		return -1
	}
	n, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		return -1
	}
	return n
}

func awaitUp(t *testing.T, l *lab.Lab, network, address string) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		page, _, err := get(l, network, address, "/metrics")
		if err == nil && value(page, "portcullis_up") != 1 {
			err = fmt.Errorf("no filter is up:\n%s", page)
		}
		return err
	})
}

const policy = "open: [9/udp]\n"

func TestMetrics(t *testing.T) {
	for _, at := range []struct{ network, address string }{{"tcp", "127.0.0.1:9734"}, {"unix", filepath.Join(t.TempDir(), "metrics.sock")}} {
		t.Run(at.network, func(t *testing.T) {
			l := lab.New(t)
			text := at.address
			if at.network == "unix" {
				text = "unix:" + text
			}
			out := run(t, l, policy, "--metrics", text)
			out.await(t, "metrics are served at "+text)
			awaitUp(t, l, at.network, at.address)
			flood(t, l, 500)
			eventually(t, 10*time.Second, func() error {
				page, _, err := get(l, at.network, at.address, "/metrics")
				if err != nil {
					return err
				}
				for series, want := range map[string]float64{
					`portcullis_packets_total{interface="eth0",reason="closed port",verdict="drop"}`: 500,
					`portcullis_packets_total{interface="eth0",reason="rule",verdict="pass"}`:        500,
					`portcullis_bytes_total{interface="eth0",reason="closed port",verdict="drop"}`:   500 * (14 + 20 + 8 + 7),
					`portcullis_rule_packets_total{forward="false",rule="9/udp"}`:                    500,
					`portcullis_policy_rules`:                        1,
					`portcullis_policy_file_problem`:                 0,
					`portcullis_agent_messages_total{level="error"}`: 0,
				} {
					if got := value(page, series); got != want {
						return fmt.Errorf("%s is %v, want %v, in:\n%s", series, got, want, page)
					}
				}
				if !strings.Contains(page, "portcullis_build_info{goversion=") || !strings.Contains(page, "process_start_time_seconds") {
					return fmt.Errorf("no build or process in:\n%s", page)
				}
				if value(page, "portcullis_flows_counted_timestamp_seconds") <= 0 {
					return fmt.Errorf("flows were not counted:\n%s", page)
				}
				return nil
			})
		})
	}
}

// An address in use does not keep the agent from filtering, is said, and is tried again.
func TestTheAddressIsInUse(t *testing.T) {
	l := lab.New(t)
	var other net.Listener
	l.Server.Do(t, func() (err error) {
		other, err = net.Listen("tcp", "127.0.0.1:9734")
		return err
	})
	defer other.Close()
	out := run(t, l, policy, "--metrics", "127.0.0.1:9734")
	out.await(t, "metrics are not served at 127.0.0.1:9734, which is tried again every 5s: listen tcp 127.0.0.1:9734: bind: address already in use")
	eventually(t, 10*time.Second, func() error {
		b, err := l.Server.Command(lab.ProgramWithDaemon(t), "--pin-path", l.PinPath, "status").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, b)
		}
		return nil
	})
	other.Close()
	out.await(t, "metrics are served at 127.0.0.1:9734")
	if n := strings.Count(out.String(), "are not served"); n != 1 {
		t.Errorf("that is said %d times:\n%s", n, out)
	}
}

// The socket of an agent that was killed is replaced; one of another program, or a file, is not.
func TestTheSocketIsThere(t *testing.T) {
	l := lab.New(t)
	path := filepath.Join(t.TempDir(), "metrics.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(t, l, policy, "--metrics", "unix:"+path)
	out.await(t, path+" is a regular file, and not a socket")
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Fatalf("the file is %q now, %v", b, err)
	}
	os.Remove(path)
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	out.await(t, "metrics are served at unix:"+path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket has the mode %v, %v", info.Mode(), err)
	}
}

func TestMetricsAddressesThatAreRefused(t *testing.T) {
	lab.RequireRoot(t)
	for address, want := range map[string]string{
		"192.0.2.1:9734": "say --metrics-anywhere",
		":9734":          "write an address and a port",
		"[::]:9734":      "say --metrics-anywhere",
		"localhost:9734": "write an address and a port",
		"127.0.0.1:0":    "write an address and a port",
		"unix:relative":  "has to be absolute",
		"":               "write an address and a port",
	} {
		b, err := exec.Command(lab.ProgramWithDaemon(t), "--pin-path", "/sys/fs/bpf/none", "run", "--metrics", address).CombinedOutput()
		var exit *exec.ExitError
		if e, ok := err.(*exec.ExitError); ok {
			exit = e
		}
		if exit == nil || exit.ExitCode() != 2 || !strings.Contains(string(b), want) {
			t.Errorf("%q: %v: %s", address, err, b)
		}
	}
}

// A real Prometheus scrapes, and finds the figure by its query language; no alert fires but where it should.
func TestPrometheus(t *testing.T) {
	prometheus := lab.NeedProgram(t, "prometheus")
	l := lab.New(t)
	run(t, l, policy, "--metrics", "127.0.0.1:9734").await(t, "metrics are served")
	rules, err := filepath.Abs("../../packaging/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [" + rules +
		"]\nscrape_configs: [{job_name: portcullis, static_configs: [{targets: ['127.0.0.1:9734']}]}]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out := &output{}
	server := l.Server.Command(prometheus, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:9090")
	server.Stdout, server.Stderr = out, out
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	awaitUp(t, l, "tcp", "127.0.0.1:9734")
	flood(t, l, 300)
	query := func(q string) (string, error) {
		page, _, err := get(l, "tcp", "127.0.0.1:9090", "/api/v1/query?query="+q)
		if err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		var answer struct {
			Data struct {
				Result []struct {
					Value [2]any `json:"value"`
				} `json:"result"`
			} `json:"data"`
		}
		if err := json.Unmarshal([]byte(page), &answer); err != nil || len(answer.Data.Result) != 1 {
			targets, _, _ := get(l, "tcp", "127.0.0.1:9090", "/api/v1/targets")
			return "", fmt.Errorf("%v: %s\nof %s", err, page, targets)
		}
		return fmt.Sprint(answer.Data.Result[0].Value[1]), nil
	}
	eventually(t, 30*time.Second, func() error {
		got, err := query(`sum(portcullis_packets_total%7Breason="closed%20port"%7D)`)
		if err == nil && got != "300" {
			err = fmt.Errorf("300 packets were dropped, and Prometheus says %s", got)
		}
		return err
	})
	if page, _, err := get(l, "tcp", "127.0.0.1:9090", "/api/v1/rules"); err != nil || !strings.Contains(page, "PortcullisDown") || strings.Contains(page, `"health":"err"`) {
		t.Errorf("the alert rules: %v: %s", err, page)
	}
}

func TestAlertRulesAndDashboard(t *testing.T) {
	const dashboard = "../../packaging/grafana/portcullis.json"
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil || len(d.Panels) < 10 {
		t.Fatalf("%s: %v, %d panels", dashboard, err, len(d.Panels))
	}
	promtool := lab.NeedProgram(t, "promtool")
	if b, err := exec.Command(promtool, "check", "rules", "../../packaging/prometheus/alerts.yml").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, b)
	}
	// The queries of the dashboard, as rules.
	rules := "groups: [{name: dashboard, rules: [\n"
	for i, p := range d.Panels {
		for j, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$interface", ".*").Replace(target.Expr)
			quoted, _ := json.Marshal(expr)
			rules += fmt.Sprintf("  {record: 'panel:%d:%d', expr: %s},\n", i, j, quoted)
		}
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, []byte(rules+"]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(promtool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, b)
	}
}

// A scrape takes no longer than it may, with ten thousand rules and a million flows.
func TestScrapeOfALargeFilter(t *testing.T) {
	const rules, flows = 10_000, 1_000_000
	l := lab.New(t)
	var text strings.Builder
	fmt.Fprintf(&text, "flows: {max: %d}\nopen:\n", 2*flows)
	for i := range rules {
		fmt.Fprintf(&text, "  - %d/tcp\n", 10_000+2*i)
	}
	run(t, l, text.String(), "--metrics", "127.0.0.1:9734").await(t, "metrics are served")
	awaitUp(t, l, "tcp", "127.0.0.1:9734")
	l.Server.Do(t, func() error { return enter(l.PinPath, flows) })
	var took []time.Duration
	eventually(t, 30*time.Second, func() error {
		page, _, err := get(l, "tcp", "127.0.0.1:9734", "/metrics")
		if got := value(page, `portcullis_flows{state="udp"}`); err == nil && got < flows*99/100 {
			err = fmt.Errorf("%v flows are counted", got)
		}
		return err
	})
	cpu := 0.0
	for i := range 15 {
		page, once, err := get(l, "tcp", "127.0.0.1:9734", "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, once)
		if used := value(page, "process_cpu_seconds_total"); i == 0 {
			cpu = -used
		} else if i == 14 {
			cpu += used
		}
		time.Sleep(50 * time.Millisecond)
	}
	slices.Sort(took)
	t.Logf("a scrape takes %v, from %v to %v, and %.1f ms of CPU", took[len(took)/2], took[0], took[len(took)-1], cpu/14*1000)
	// The figure in the documents is of an idle machine: here a scrape is told from one that walks through all flows.
	if cpu/14 > 0.1 {
		t.Errorf("a scrape takes %.3f s of CPU", cpu/14)
	}
}

// enter writes flows into the table of a running filter.
func enter(pinPath string, n int) error {
	prog, err := ebpf.LoadPinnedProgram(filepath.Join(pinPath, loader.Schema, "policy/enter"), nil)
	if err != nil {
		return err
	}
	defer prog.Close()
	clock, err := ebpf.LoadPinnedProgram(filepath.Join(pinPath, loader.Schema, "policy/clock"), nil)
	if err != nil {
		return err
	}
	defer clock.Close()
	now := make([]byte, 8)
	if _, err := clock.Run(&ebpf.RunOptions{Context: now, ContextOut: now}); err != nil {
		return err
	}
	states := maps.FlowStates()
	state := states[slices.IndexFunc(states, func(s maps.FlowState) bool { return s.String() == "udp" })]
	expires := binary.NativeEndian.Uint64(now) + 1<<24
	for i := range n {
		f := maps.Flow{Protocol: frame.ProtoUDP, Local: netip.AddrPortFrom(lab.ServerV4, uint16(1024+i%60000)),
			Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 16), byte(i >> 8)}), uint16(i)), State: state, Expires: expires}
		args := f.Seed(false)
		b := unsafe.Slice((*byte)(unsafe.Pointer(args)), unsafe.Sizeof(*args))
		if _, err := prog.Run(&ebpf.RunOptions{Context: b, ContextOut: b}); err != nil {
			return err
		}
	}
	return nil
}
