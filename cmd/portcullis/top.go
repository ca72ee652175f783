// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/spf13/cobra"
)

func (a *app) topCommand() *cobra.Command {
	interval, once := time.Second, false
	cmd := &cobra.Command{
		Use:         "top",
		Short:       "Watch what comes in, and what becomes of it",
		Annotations: needsFilter,
		Long: `Watch packets a second by reason, rule and interface, who sends what is dropped, block
lists and bans, and how many flows there are, in a terminal of 60 columns or more.

Keys: tab or 1 to 5 choose what is shown; s sorts by another column; / shows what contains
a text, and esc all again; the arrows select; b bans the source that is selected, or an
address, for an hour, after asking; q ends it.

Sources are sampled while they are shown, as "portcullis monitor" would show packets, at
most 1,000 of a reason per second and CPU. How many packets a source sent is estimated by
what was dropped in all. Of more than 4,096 sources, those of the fewest are forgotten.

--once looks for one interval and prints it, for scripts with -o json.`,
		Example: `  portcullis top
  portcullis top --once -o json | jq '.reasons[] | select(.verdict == "drop")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.privileged(); err != nil {
				return err
			}
			f, err := a.firewall.View(cmd.Context())
			if err != nil {
				return err
			}
			f.Close()
			args := []string{"--interval", interval.String(), "--output", a.output.String()}
			if once {
				args = append(args, "--once")
			}
			return a.becomeDaemon("top", args...)
		},
	}
	cmd.Flags().DurationVar(&interval, "interval", interval, "look every `TIME`")
	cmd.Flags().BoolVar(&once, "once", false, "look for one interval, print that, and end")
	return cmd
}
