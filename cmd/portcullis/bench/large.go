// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
)

const (
	mostRules  = 10000
	eachRule   = 10 // networks of it, of both families by turns
	firstLarge = 1024
)

// largePolicy is a policy of many rules, each for networks of its own.
type largePolicy int

func (n largePolicy) network(rule, i int) string {
	at := rule*eachRule + i
	if i%2 == 0 {
		return fmt.Sprintf("%d.%d.%d.0/24", 11+at>>16, at>>8&0xff, at&0xff)
	}
	return fmt.Sprintf("2001:db8:%x:%x::/64", at>>16, at&0xffff)
}

// file returns the policy as a file, with more rules for single ports at its end.
func (n largePolicy) file(more ...string) string {
	var b strings.Builder
	b.WriteString("interfaces: [inside]\nopen:\n")
	for rule := range int(n) {
		networks := make([]string, eachRule)
		for i := range networks {
			networks[i] = n.network(rule, i)
		}
		fmt.Fprintf(&b, "  - %d/tcp from %s\n", firstLarge+rule, strings.Join(networks, ","))
	}
	for _, rule := range more {
		fmt.Fprintf(&b, "  - %s\n", rule)
	}
	return b.String()
}

// nft returns sets of the same size. They say less, as each network may reach each port, and are the cheapest for nft.
func (n largePolicy) nft() string {
	var ports, four, six []string
	for rule := range int(n) {
		ports = append(ports, fmt.Sprint(firstLarge+rule))
		for i := range eachRule {
			if network := n.network(rule, i); i%2 == 0 {
				four = append(four, network)
			} else {
				six = append(six, network)
			}
		}
	}
	return fmt.Sprintf(`table inet large {
	set ports { type inet_service; elements = { %s } }
	set four { type ipv4_addr; flags interval; elements = { %s } }
	set six { type ipv6_addr; flags interval; elements = { %s } }
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		tcp dport @ports ip saddr @four accept
		tcp dport @ports ip6 saddr @six accept
	}
}
`, strings.Join(ports, ", "), strings.Join(four, ", "), strings.Join(six, ", "))
}

// largeRounds is how often a large policy is put in force: it takes longer than a packet.
func (b *bench) largeRounds() int { return (b.options.Rounds + 2) / 3 }

// applyLarge measures how long it takes to put a large policy in force from nothing, how much memory that takes, and how
// long a change of one rule in it takes: each the whole command.
func (b *bench) applyLarge() error {
	dir, err := os.MkdirTemp("", "portcullis-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n := largePolicy(min(mostRules, b.options.Flows))
	files := map[string]string{"none": "interfaces: [inside]\nopen: []\n", "large": n.file(), "more": n.file("9/tcp"), "nft": n.nft()}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	self := filepath.Join(dir, "portcullis")
	if err := copySelf(self); err != nil {
		return err
	}
	size := fmt.Sprintf("%s with %s", count(int(n), "rule"), count(int(n)*eachRule, "network"))
	whole := Work{Key: "apply-large", Title: size + ", from nothing: the whole command", Unit: Microseconds}
	memory := Work{Key: "apply-large-memory", Title: size + ", from nothing: the most memory of the command", Unit: Megabytes}
	more := Work{Key: "apply-large-more", Title: size + ", and one rule more: the whole command", Unit: Microseconds}
	other, err := b.largeNft(dir)
	if err != nil {
		return err
	}
	if other != nil {
		defer other.stand.close()
	}
	config := filepath.Join(dir, "none")
	return b.filtered(config, func(*stand, *loader.Filter) error {
		apply := func(name string) (time.Duration, float64, error) {
			return timed(self, "--pin-path", pinPath, "--config", config, "apply", "--force", filepath.Join(dir, name))
		}
		for range b.largeRounds() {
			b.progress.step(whole.Title)
			took, most, err := apply("large")
			if err != nil {
				return err
			}
			b.value(whole, keyPortcullis, "portcullis apply", micros(took))
			b.value(memory, keyPortcullis, "portcullis apply", most)
			if took, _, err = apply("more"); err != nil {
				return err
			}
			b.value(more, keyPortcullis, "portcullis apply", micros(took))
			if _, _, err := apply("none"); err != nil {
				return err
			}
			if err := other.measure(b, whole, memory, more); err != nil {
				return err
			}
			if err := b.ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	})
}

// nftLoader puts sets in force with nft.
type nftLoader struct {
	stand *stand
	file  string
}

// largeNft returns nil where nft is not to be measured.
func (b *bench) largeNft(dir string) (*nftLoader, error) {
	for i := range b.kinds {
		if b.kinds[i].key != keyNft {
			continue
		}
		s, err := newStand(true)
		return &nftLoader{s, filepath.Join(dir, "nft")}, err
	}
	return nil, nil
}

func (l *nftLoader) measure(b *bench, whole, memory, more Work) error {
	if l == nil {
		return nil
	}
	return l.stand.inside.do(func() error {
		took, most, err := timed("nft", "-f", l.file)
		if err != nil {
			return err
		}
		b.value(whole, keyNft, "nft -f, sets of the same size", micros(took))
		b.value(memory, keyNft, "nft -f, sets of the same size", most)
		if took, _, err = timed("nft", "add element inet large ports { 9 }"); err != nil {
			return err
		}
		b.value(more, keyNft, "nft add element", micros(took))
		_, _, err = timed("nft", "delete table inet large")
		return err
	})
}

// timed runs a command in the room of the calling thread, and returns how long it took and the most memory that it had.
func timed(name string, args ...string) (took time.Duration, megabytes float64, err error) {
	return timedWith(nil, name, args...)
}

// timedWith is timed for a command that reads a file.
func timedWith(stdin *os.File, name string, args ...string) (took time.Duration, megabytes float64, err error) {
	said, err := os.CreateTemp("", "portcullis-bench-")
	if err != nil {
		return 0, 0, err
	}
	defer said.Close()
	defer os.Remove(said.Name())
	cmd := detached(name, args...)
	cmd.Stdout, cmd.Stderr = said, said
	if stdin != nil {
		cmd.Stdin = stdin
	}
	start := time.Now()
	err = cmd.Run()
	took = time.Since(start)
	if err != nil {
		text, _ := os.ReadFile(said.Name())
		return 0, 0, failed(cmd, err, text)
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		megabytes = float64(usage.Maxrss) * 1024 / 1e6
	}
	return took, megabytes, nil
}
