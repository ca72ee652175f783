// SPDX-License-Identifier: Apache-2.0

package bench

// ReportPage is the file that Write makes for people.
const ReportPage = "benchmark.html"

func (r *Report) Write(dir string) error { return nil }
