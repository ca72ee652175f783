// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
)

// fileTime is how often the host's file is looked at.
const fileTime = 3 * time.Second

// RunFile is [Member.Run] by a fleet.yaml, which is read anew when it, or a file that it names, has changed. A bad one is
// logged: the filter does not depend on it.
func RunFile(ctx context.Context, o Options, path string) {
	told := ""
	for ctx.Err() == nil {
		stamp := stampOf(path, nil)
		config, err := fleet.ReadConfig(path)
		var files []string
		if err == nil {
			files = append(append(files, config.Key...), config.CA, config.Certificate, config.Private)
			stamp = stampOf(path, files)
			o.Config = config
			var m *Member
			if m, err = New(o); err == nil {
				if told != "" {
					o.Log.Info("%s is good again", path)
				}
				told = ""
				runUntil(ctx, m, func() bool { return stampOf(path, files) != stamp })
				continue
			}
		}
		if err.Error() != told {
			told = err.Error()
			o.Log.Error("%v; the policy in force stays", err)
		}
		sleep(ctx, fileTime) // what is amiss may be another file
	}
}

// runUntil runs a member until its files have changed.
func runUntil(ctx context.Context, m *Member, changed func() bool) {
	ctx, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	for ctx.Err() == nil && !changed() {
		sleep(ctx, fileTime)
	}
	end()
	running.Wait()
}

// stampOf stands for what files hold.
func stampOf(path string, more []string) string {
	all := ""
	for _, p := range append([]string{path}, more...) {
		text, _ := os.ReadFile(p)
		all += fleet.Digest(text)
	}
	return all
}
