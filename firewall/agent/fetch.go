// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"github.com/portcullis-firewall/portcullis/firewall/fetch"
)

// fetched logs what has become of a list, and puts it in force if it is another one now. What goes on to fail is told once
// for each reason.
func (a *Agent) fetched(ctx context.Context, r fetch.Report) {
	if r.Err != nil {
		if text := r.Err.Error(); a.unfetched[r.URL] != text {
			a.unfetched[r.URL] = text
			a.Log.Error("%s; what was fetched before stays in force, and it is tried again", text)
		}
		return
	}
	if a.unfetched[r.URL] != "" || r.Changed {
		delete(a.unfetched, r.URL)
		a.Log.Info("list %s was fetched from %s: %s", r.List, r.URL, networksText(r.Networks))
	}
	if !r.Changed {
		return
	}
	if n := len(r.Skipped); n > 0 {
		a.Log.Warn("list %s from %s has lines that are no networks, and are left out, such as line %d: %s", r.List, r.URL, r.Skipped[0].Line, r.Skipped[0].Msg)
	}
	a.reload(ctx)
}

func networksText(n int) string {
	if n == 1 {
		return "1 network"
	}
	return fmt.Sprintf("%d networks", n)
}
