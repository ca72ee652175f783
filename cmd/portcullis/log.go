// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/monitor"
	"github.com/portcullis-firewall/portcullis/loader"
)

func (a *app) logCommand() *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use:         "log",
		Short:       "Show invalid packets",
		Annotations: needsFilter,
		Long: `Show the logged packets that nobody has been shown yet: under "invalid: log", those that
are broken, or that belong to no connection and can begin none. Any number of readers may
--follow at once; each sees every packet. Of a flood, up to 32 packets per second and CPU
are logged; "portcullis status" counts all of them. With --follow, JSON is one object per
line.`,
		Example: `  portcullis log
  portcullis log --follow
  portcullis log -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.log(follow) },
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep going until interrupted")
	return cmd
}

// logView is a logged packet in JSON.
type logView struct {
	Time      time.Time `json:"time"`
	Interface string    `json:"interface"`
	Reason    string    `json:"reason"`
	Length    int       `json:"length"`
	Packet    string    `json:"packet"`
	Frame     []byte    `json:"frame"` // its first bytes, in base64
}

func (a *app) log(follow bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	f, err := a.view(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	if a.output == asJSON && !follow {
		views := []logView{}
		if err := f.Log(ctx, false, func(p loader.LoggedPacket) error {
			views = append(views, viewLogged(p))
			return nil
		}); err != nil {
			return err
		}
		return a.print(views, nil)
	}
	lines := json.NewEncoder(a.stdout)
	lines.SetEscapeHTML(false)
	shown := 0
	err = f.Log(ctx, follow, func(p loader.LoggedPacket) error {
		shown++
		v := viewLogged(p)
		if a.output != asJSON {
			a.printf("%s  %s  %s  %s, %s\n", v.Time.Format("2006-01-02 15:04:05.000"), v.Interface, v.Reason, v.Packet,
				count(v.Length, "byte", "bytes"))
		} else if err := lines.Encode(v); err != nil {
			return err
		}
		return a.out.Flush()
	})
	if err == nil && shown == 0 && !follow {
		a.printf("nothing was logged\n")
	}
	return err
}

func viewLogged(p loader.LoggedPacket) logView {
	return logView{p.Time, p.Interface, p.Reason, p.Length, monitor.Describe(p.Frame, p.Ethernet), p.Frame}
}
