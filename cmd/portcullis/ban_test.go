// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/maps"
)

// bans checks who is banned, and why.
func (h *fakeHost) bans(want ...string) {
	h.t.Helper()
	var have []string
	for _, b := range h.BanList {
		text := b.Prefix.String()
		if !b.Until.IsZero() {
			text += " " + b.Until.Sub(b.Since).Round(time.Minute).String()
		}
		have = append(have, strings.TrimSpace(text+" "+b.Reason))
	}
	if strings.Join(have, "; ") != strings.Join(want, "; ") {
		h.t.Errorf("banned are %q, want %q", have, want)
	}
}

func TestBan(t *testing.T) {
	h := newHost(t)
	h.runs("open: [ssh]")
	h.types(0, "ban", "203.0.113.7", "2001:db8::/32", "--for", "10m", "--reason", "sshd")
	h.says("banned 203.0.113.7 for 10m (sshd)\nbanned 2001:db8::/32 for 10m (sshd)\n")
	h.bans("203.0.113.7/32 10m0s sshd", "2001:db8::/32 10m0s sshd")
	h.Live = 2
	h.types(0, "ban", "198.51.100.0/24", "-o", "json")
	var view struct {
		Banned, Kept, Cut int
		Errors            []banProblem
		Warnings          []string
	}
	h.json(&view)
	if view.Banned != 1 || view.Kept != 0 || view.Cut != 2 || len(view.Errors) > 0 {
		t.Errorf("got %+v", view)
	}
	h.Live = 0
	// For another reason: the longer one stays. For the same one: the new one.
	h.types(0, "ban", "203.0.113.7", "--for", "5m", "--reason", "nginx")
	h.says("1 address or network was banned already for another reason, for as long or longer\n")
	h.types(0, "ban", "203.0.113.7", "--for", "1h", "--reason", "nginx")
	h.types(0, "ban", "2001:db8::/32", "--for", "1m", "--reason", "sshd")
	h.types(0, "ban", "198.51.100.0/24", "--for", "1d", "--reason", "nginx")
	h.bans("203.0.113.7/32 1h0m0s nginx", "2001:db8::/32 1m0s sshd", "198.51.100.0/24")

	h.types(0, "bans")
	h.says("ADDRESS          SINCE ", "\n198.51.100.0/24  20", "  for ever  0\n203.0.113.7      20", "nginx\n2001:db8::/32")
	h.types(0, "bans", "-o", "json")
	var list struct {
		Bans []struct {
			Address, Reason string
			Since           time.Time
			Until           time.Time
			Left            *int `json:"left_seconds"`
			Packets         *uint64
		}
		Reasons []reasonView
	}
	h.json(&list)
	if len(list.Bans) != 3 || list.Bans[0].Address != "198.51.100.0/24" || list.Bans[0].Left != nil || *list.Bans[1].Left < 3590 || list.Bans[1].Reason != "nginx" {
		t.Errorf("got %+v", list)
	}
	h.types(0, "bans", "--limit", "1")
	h.says("and 2 more\n")
	h.types(0, "bans", "198.51.100.9")
	h.says("banned: 198.51.100.0/24, since ", ", for ever; 0 packets\n")
	h.types(0, "bans", "192.0.2.9")
	h.says("192.0.2.9 is neither banned nor blocked\n")
	h.types(0, "bans", "192.0.2.9", "-o", "json")

	h.types(0, "unban", "198.51.100.0/24", "192.0.2.9")
	h.says("not banned: 192.0.2.9\nended 1 ban\n")
	h.types(0, "unban", "203.0.113.7", "--reason", "sshd") // which the other one outlasts
	h.says("ended 1 ban\n")
	h.types(0, "unban", "203.0.113.7", "--reason", "sshd")
	h.says("ended 0 bans\n")
	h.types(0, "unban", "203.0.113.7", "--reason", "nginx", "-o", "json")
	h.types(0, "unban", "--reason", "nginx")
	h.bans("2001:db8::/32 1m0s sshd")
	h.types(0, "unban", "--all")
	h.bans()
	h.types(0, "bans")
	h.says("nobody is banned\n")
	h.types(0, "bans", "-o", "json")
}

// Who bans for a reason and cannot unban for it is told.
func TestBansWithoutRoomForReasons(t *testing.T) {
	h := newHost(t)
	h.runs("{}")
	h.types(0, "ban", "203.0.113.6", "--reason", "sshd")
	if h.stderr != "" {
		t.Errorf("it complains %s", h.stderr)
	}
	h.NoReasons = true
	h.types(0, "ban", "203.0.113.7", "--reason", "nginx")
	h.complains(`warning: there is no room for another reason of bans: "nginx" counts as "other"`)
	h.stdin = "203.0.113.8 1h one\n203.0.113.9 1h two\n203.0.113.10 1h two\n"
	h.types(0, "ban", "-")
	h.complains(`"one" (and 1 more) counts as "other"`)
}

func TestWrongBans(t *testing.T) {
	h := newHost(t)
	h.runs("{}")
	for want, args := range map[string][]string{
		"bad address":             {"ban", "203.0.113"},
		"flag, --for 10m":         {"ban", "203.0.113.7", "10m"},
		"has host bits set":       {"ban", "203.0.113.7/24"},
		"--for \"600\":":          {"ban", "203.0.113.7", "--for", "600"},
		"cannot be printed":       {"ban", "203.0.113.7", "--reason", "a\x1bb"},
		"too long":                {"ban", "203.0.113.7", "--reason", strings.Repeat("x", 64)},
		"no address named":        {"ban"},
		"no address can stand":    {"ban", "-", "203.0.113.7"},
		"unexpected argument":     {"bans", "203.0.113.7", "203.0.113.8"},
		"bad address \"x\"":       {"bans", "x"},
		"leave the rest out":      {"unban", "--all", "203.0.113.7"},
		"no address named: see":   {"unban"},
		"write a number from 1 o": {"bans", "--limit", "-1"},
	} {
		h.types(2, args...)
		h.complains(want)
	}
	h.bans()
}

func TestBanGuard(t *testing.T) {
	h := newHost(t)
	h.runs("{}")
	addr := netip.MustParseAddr
	h.GatewayList, h.ResolverList, h.Addrs = []netip.Addr{addr("192.0.2.1")}, []netip.Addr{addr("2001:db8::53")}, []netip.Addr{addr("192.0.2.9")}
	h.SameMACList = []netip.Addr{addr("203.0.113.9")}
	h.Trusts = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	h.SSHList = []host.Connection{{Local: netip.MustParseAddrPort("192.0.2.9:2222"), Remote: netip.MustParseAddrPort("198.51.100.7:50000")}}
	h.session = "198.51.100.8 50000 192.0.2.9 22"
	for address, want := range map[string]string{
		"192.0.2.1":       "192.0.2.1 is the default gateway: use --force if it is meant",
		"203.0.113.9":     "203.0.113.9 is at the MAC address of the default gateway: use --force if it is meant",
		"192.0.2.0/28":    "192.0.2.0/28 holds 192.0.2.9, an address of this host",
		"2001:db8::/64":   "2001:db8::/64 holds 2001:db8::53, a resolver of this host",
		"10.1.2.3":        "10.1.2.3 is trusted by the policy",
		"198.51.100.7":    "198.51.100.7 is the source of an ssh session in use, to port 2222",
		"198.51.100.8/31": "198.51.100.8/31 holds 198.51.100.8, the source of this ssh session",
		"0.0.0.0/0":       "0.0.0.0/0 is shorter than /8",
		"2000::/3":        "2000::/3 is shorter than /16",
	} {
		h.types(1, "ban", address)
		h.complains("portcullis: not banned: " + want)
		if strings.Count(h.stderr, "\n") != 1 || h.stdout != "" {
			t.Errorf("%s: it says %q, %q", address, h.stdout, h.stderr)
		}
	}
	h.bans()
	h.types(1, "ban", "203.0.113.7", "192.0.2.1")
	h.says("banned 203.0.113.7\n")
	h.bans("203.0.113.7/32")
	h.types(0, "ban", "192.0.2.1", "10.1.2.3", "--force")
	h.complains("warning: who the policy trusts is let in all the same, and 10.1.2.3 is trusted")
	h.bans("203.0.113.7/32", "192.0.2.1/32", "10.1.2.3/32")
}

func TestBanInput(t *testing.T) {
	h := newHost(t)
	h.runs("{}")
	h.GatewayList = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	h.stdin = "203.0.113.7\n# a comment\n\n203.0.113.8 1h sshd\r\n<html>\n192.0.2.1\n203.0.113.9 600\n2001:db8::/32 - for good\n" +
		strings.Repeat("x", 5000) + "\n" + strings.Repeat("y", 600_000) + "\n203.0.113.10"
	h.types(1, "ban", "-", "--for", "10m", "--reason", "script")
	h.says("banned 4 addresses and networks\n")
	h.complains("portcullis: line 5: bad address \"<html>\"", "line 6: not banned: 192.0.2.1 is the default gateway", "line 7: bad time \"600\"",
		"line 9: the line is longer", "line 10: the line is longer")
	if strings.Count(h.stderr, "\n") != 5 {
		t.Errorf("it complains\n%s", h.stderr)
	}
	h.bans("203.0.113.7/32 10m0s script", "203.0.113.8/32 1h0m0s sshd", "2001:db8::/32 for good", "203.0.113.10/32 10m0s script")
	h.stdin = "203.0.113.7\n203.0.113.8\n192.0.2.77\n"
	h.types(0, "unban", "-")
	h.says("not banned: 192.0.2.77\nended 2 bans\n")
	h.stdin = "nonsense\n"
	h.types(1, "ban", "-", "-o", "json")
	var view struct{ Errors []banProblem }
	h.json(&view)
	if len(view.Errors) != 1 || view.Errors[0].Line != 1 {
		t.Errorf("got %+v", view)
	}
	h.stdin = ""
	h.types(0, "ban", "-")
	var many strings.Builder
	for range mostProblems + 5 {
		many.WriteString("x\n")
	}
	h.stdin = many.String()
	h.types(1, "ban", "-")
	h.complains("portcullis: 5 more lines could not be used\n")
	h.types(1, "ban", "-", "-o", "json")
	h.json(&view)
	if n := len(view.Errors); n != mostProblems+1 || view.Errors[n-1].Message != "5 more lines could not be used" {
		t.Errorf("%d problems are told, at the end %+v", n, view.Errors[n-1])
	}
}

// A pipe that stays open for days goes on to tell problems, so many a minute, and takes no more memory for them.
func TestProblemsOfAPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stderr strings.Builder
		a := &app{out: bufio.NewWriter(io.Discard)}
		a.stderr = &stderr
		told := &problems{app: a}
		for minute := range 5 {
			for i := range mostProblems + 3 {
				told.add(i+1, fmt.Errorf("problem of minute %d", minute))
			}
			time.Sleep(problemTime)
		}
		told.add(1, errors.New("the last one"))
		if n := strings.Count(stderr.String(), "\n"); n != 5*(mostProblems+1)+1 {
			t.Errorf("%d lines are told", n)
		}
		for _, want := range []string{"line 1000: problem of minute 4\n", "\nportcullis: 3 more lines could not be used\nportcullis: line 1: the last one\n"} {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("it does not tell %q", want)
			}
		}
		if n := len(told.view()); n != mostProblems+1 {
			t.Errorf("%d problems are kept", n)
		}
		if told.end() == nil {
			t.Error("it ends well")
		}
		var kept []string
		for range 3 * mostProblems {
			kept = told.warn(kept, []string{"a", "b"})
		}
		if len(kept) != mostProblems {
			t.Errorf("%d warnings are kept", len(kept))
		}
	})
}

// A pipe that stays open is answered at once, line by line.
func TestBanPipe(t *testing.T) {
	h := newHost(t)
	h.runs("{}")
	r, w := io.Pipe()
	e := h.env()
	var stdout, stderr strings.Builder
	e.stdin, e.stdout, e.stderr = r, &stdout, &stderr
	done := make(chan int)
	go func() { done <- run(e, []string{"ban", "-"}) }()
	journal := filepath.Join(h.stateDir, "bans")
	for i := range 5 {
		address := fmt.Sprintf("203.0.113.%d", i)
		fmt.Fprintln(w, address)
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			text, _ := os.ReadFile(journal)
			if strings.Contains(string(text), " + "+address+" ") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s is not banned, and the pipe is open", address)
			}
		}
	}
	w.Close()
	if code := <-done; code != 0 || !strings.Contains(stdout.String(), "banned 5 addresses") {
		t.Errorf("exits with %d, says %q, %q", code, stdout.String(), stderr.String())
	}
}

func TestBansOutliveTheFilter(t *testing.T) {
	h := newHost(t)
	path := h.runs("{}")
	h.types(0, "ban", "203.0.113.7", "--for", "1h", "--reason", "sshd")
	h.types(0, "ban", "203.0.113.8", "203.0.113.9", "203.0.113.10")
	h.types(0, "unban", "203.0.113.8")
	h.Running, h.BanList = nil, nil // a reboot
	h.types(3, "ban", "192.0.2.77")
	h.types(3, "unban", "203.0.113.9")
	h.complains(`the next "portcullis up" does not bring back 1 of the bans`)
	h.types(0, "up", "eth0", "--config", path)
	h.says("2 bans are in force again\n")
	h.bans("203.0.113.7/32 1h0m0s sshd", "203.0.113.10/32")
	h.types(0, "up", "eth0", "--config", path)
	h.bans("203.0.113.7/32 1h0m0s sshd", "203.0.113.10/32")
	h.types(0, "unban", "--all")
	h.Running, h.BanList = nil, nil
	h.types(0, "up", "eth0", "--config", path)
	h.bans()
}

// What cannot be written down is in force all the same, and the command says so.
func TestBansThatCannotBeWrittenDown(t *testing.T) {
	h := newHost(t)
	h.runs("{}")
	if err := os.Mkdir(filepath.Join(h.stateDir, "bans"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.types(1, "ban", "203.0.113.7")
	h.complains("it is done, but could not be written down, so the next boot will not know of it")
	h.says("banned 1 address or network\n")
	h.bans("203.0.113.7/32")
	h.types(1, "ban", "203.0.113.8", "-o", "json")
	h.json(new(any))
	h.types(1, "unban", "203.0.113.7")
	h.complains("it is done")
	h.bans("203.0.113.8/32")
	h.Full = 2
	h.types(1, "ban", "203.0.113.9", "203.0.113.10")
	h.complains("no room for more bans", `"portcullis unban" makes room`)
	h.bans("203.0.113.8/32", "203.0.113.9/32")
	h.Fail = errors.New("the kernel refuses")
	h.types(1, "ban", "203.0.113.11")
	h.complains("the kernel refuses")
	h.bans("203.0.113.8/32", "203.0.113.9/32")
}

func TestManyBansAreListed(t *testing.T) {
	h := newHost(t)
	h.runs("{}")
	for i := range mostSorted + 100 {
		addr := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		h.BanList = append(h.BanList, maps.Ban{Prefix: netip.PrefixFrom(addr, 32), Since: time.Now()})
	}
	h.types(0, "bans", "-o", "json")
	var list struct{ Bans []any }
	h.json(&list)
	if len(list.Bans) != mostSorted+100 {
		t.Errorf("%d are listed", len(list.Bans))
	}
	h.types(0, "bans")
	if n := strings.Count(h.stdout, "\n"); n != mostSorted+101 {
		t.Errorf("there are %d lines", n)
	}
}

// fail2ban's bantime may be longer than any ban: who is to be banned for that long is banned all the same.
func TestTheLongestBan(t *testing.T) {
	h := newHost(t)
	h.runs("{}")
	h.types(0, "ban", "203.0.113.7", "--for", "400000000s")
	h.complains("a ban that ends lasts 3650d at most")
	h.bans("203.0.113.7/32 87600h0m0s")
	h.types(0, "ban", "203.0.113.7", "--for", "3650d")
	if h.stderr != "" {
		t.Errorf("it complains: %q", h.stderr)
	}
	h.types(1, "ban", "127.0.0.1", "0.0.0.0", "ff02::1")
	h.complains("127.0.0.1 is loopback", "0.0.0.0 is no address of a host", "ff02::1 is multicast")
	h.bans("203.0.113.7/32 87600h0m0s")
	h.types(0, "ban", "127.0.0.1", "--force")
}

// Who could not be banned, or was already, is not said to be banned.
func TestWhoIsNotBannedIsNotSaidToBe(t *testing.T) {
	h := newHost(t)
	h.runs("{}")
	h.types(0, "ban", "203.0.113.7", "--reason", "sshd")
	h.types(0, "ban", "203.0.113.7", "--reason", "nginx", "--for", "1m")
	if strings.Contains(h.stdout, "banned 1 address") {
		t.Errorf("it says %q", h.stdout)
	}
	h.Full = 1
	h.types(1, "ban", "203.0.113.8", "203.0.113.8")
	h.complains("no room for more bans")
	if strings.Contains(h.stdout, "banned") {
		t.Errorf("it says %q", h.stdout)
	}
}
