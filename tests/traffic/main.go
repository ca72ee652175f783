// SPDX-License-Identifier: Apache-2.0

// Traffic runs the generators of tests/load by hand, in the network namespace that it is started in.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/traffic"
)

const usage = `usage: traffic COMMAND [FLAGS]
  answer -port 5300 -ports 16 -delay 20ms -delay-to 50ms
  ask    -to 192.0.2.2:5300 -ports 16 [-tcp] -rate 10000 -for 30s [-endings wtr]
  dial   -net 198.18.0.0/15 -rate 10000 -for 30s         SYNs of an unprivileged user
  forge  -dev eth0 -mac 02:00:00:00:00:01 -net 198.18.0.0/15 -to 192.0.2.1:5353 [-tcp] [-twice 2000] -rate 8000 -for 30s
Endings, in turn: w we close first, t they do, r we send a RST, R and D they do.`

func main() {
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, command string, args []string) error {
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	flags.Usage = func() { fmt.Fprintln(os.Stderr, usage) }
	var (
		to      = flags.String("to", "192.0.2.2:5300", "")
		network = flags.String("net", "198.18.0.0/15", "")
		dev     = flags.String("dev", "eth0", "")
		mac     = flags.String("mac", "", "")
		port    = flags.Int("port", 5300, "")
		ports   = flags.Int("ports", 1, "")
		tcp     = flags.Bool("tcp", false, "")
		rate    = flags.Int("rate", 1000, "")
		twice   = flags.Int("twice", 0, "")
		length  = flags.Duration("for", 10*time.Second, "")
		wait    = flags.Duration("deadline", time.Second, "")
		delay   = flags.Duration("delay", 0, "")
		delayTo = flags.Duration("delay-to", 0, "")
		endings = flags.String("endings", "w", "")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if command == "answer" {
		a := traffic.Answer{First: *port, Ports: *ports, From: *delay, To: max(*delay, *delayTo)}
		return a.Run(ctx, func() { fmt.Println("answering") })
	}
	ctx, cancel := context.WithTimeout(ctx, *length)
	defer cancel()
	target, err := netip.ParseAddrPort(*to)
	if err != nil {
		return err
	}
	prefix, err := netip.ParsePrefix(*network)
	if err != nil {
		return err
	}
	switch command {
	case "ask":
		a := traffic.Ask{
			To: target, Ports: *ports, TCP: *tcp, Rate: *rate, Count: int(float64(*rate) * length.Seconds()), Deadline: *wait,
		}
		for _, ending := range *endings {
			a.Endings = append(a.Endings, traffic.Ending(ending))
		}
		result, err := a.Run()
		fmt.Println(result)
		return err
	case "dial":
		sent, err := traffic.Dial(ctx, prefix, *rate)
		fmt.Println(sent, "connections begun")
		return err
	case "forge":
		return forge(ctx, *dev, *mac, traffic.Flood{Sources: prefix, Target: target, TCP: *tcp, Rate: *rate, Twice: *twice})
	}
	return fmt.Errorf("there is no command %q\n%s", command, usage)
}

// forge sends a flood out of a device.
func forge(ctx context.Context, dev, mac string, f traffic.Flood) error {
	device, err := net.InterfaceByName(dev)
	if err != nil {
		return err
	}
	next, err := net.ParseMAC(mac)
	if err != nil {
		return fmt.Errorf("-mac, of the next hop: %w", err)
	}
	f.From, f.To = frame.MAC(device.HardwareAddr), frame.MAC(next)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	defer unix.Close(fd)
	f.Wire = func(b []byte) error { return unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: device.Index}) }
	sources, err := f.Run(ctx)
	fmt.Println(sources, "forged sources")
	return err
}
