// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"io"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far the benchmark is.
type progress struct{ bar *progressbar.ProgressBar }

func newProgress(w io.Writer, steps int) *progress {
	if w == nil {
		return &progress{}
	}
	return &progress{progressbar.NewOptions(steps,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetWidth(24),
		progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish(),
	)}
}

// step says what comes next.
func (p *progress) step(what string) {
	if p.bar != nil {
		p.bar.Describe(what)
		_ = p.bar.Add(1)
	}
}

func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}
