// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	// MaxSize is the most bytes that a list may have, unpacked: its copy has a head, and must be readable.
	MaxSize = policy.MaxFileSize - headRoom

	// DefaultTimeout is how long a list may take.
	DefaultTimeout = 60 * time.Second

	// shrinkage is the part of what a list held before, one in so many, under which it may not shrink.
	shrinkage = 10

	maxRedirects = 5
)

// Fetcher fetches lists into a store.
type Fetcher struct {
	Store   Store
	Client  *http.Client  // nil: one that asks by the proxies of the environment, and trusts what the system does
	Timeout time.Duration // 0: DefaultTimeout
	MaxSize int64         // 0: MaxSize
}

// Result is what has become of a list.
type Result struct {
	Changed  bool // the copy is another one now
	Networks int
	Skipped  []*policy.Error // lines that are no networks
}

// Fetch fetches a list by its URL, if it is another than the copy, and keeps it. What is no list is an error, and the copy stays.
func (f *Fetcher) Fetch(ctx context.Context, l policy.List) (*Result, error) {
	timeout := f.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it took longer than %v", timeout))
	defer cancel()
	r, err := f.fetch(ctx, l.URL, l.Admits)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return r, err
}

func (f *Fetcher) fetch(ctx context.Context, url string, admits bool) (*Result, error) {
	old, err := f.Store.Read(url)
	if err != nil {
		old = nil // it is fetched as if for the first time
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if request.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is not fetched by https", url)
	}
	request.Header.Set("User-Agent", "portcullis")
	if old != nil && old.ETag != "" {
		request.Header.Set("If-None-Match", old.ETag)
	}
	if old != nil && old.LastModified != "" {
		request.Header.Set("If-Modified-Since", old.LastModified)
	}
	response, err := f.client().Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	asked := old != nil && (old.ETag != "" || old.LastModified != "")
	switch {
	case response.StatusCode == http.StatusNotModified && asked:
		return &Result{Networks: old.Networks}, f.Store.confirm(url, time.Now())
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the server answers %q", response.Status)
	}
	text, err := f.body(response)
	if err != nil {
		return nil, err
	}
	list := policy.ReadList(url, text)
	err = judge(list, old, f.Store.Path(url))
	if err == nil && admits {
		err = judgeAdmitting(list)
	}
	if err != nil {
		return nil, err
	}
	result := &Result{Networks: len(list.Networks), Skipped: list.Problems}
	if old != nil && bytes.Equal(old.Text, text) {
		return result, f.Store.confirm(url, time.Now())
	}
	result.Changed = true
	return result, f.Store.save(&Copy{Text: text, head: head{
		URL: url, ETag: validator(response.Header.Get("ETag")), LastModified: validator(response.Header.Get("Last-Modified")), Networks: len(list.Networks),
	}})
}

// validator returns what a server wants to hear of a copy, unless it is absurdly long or no printable ASCII.
func validator(text string) string {
	if len(text) > maxValidator || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return text
}

func (f *Fetcher) client() *http.Client {
	client := http.Client{}
	if f.Client != nil {
		client = *f.Client
	}
	client.CheckRedirect = func(next *http.Request, before []*http.Request) error {
		switch {
		case next.URL.Scheme != "https":
			return fmt.Errorf("it leads on to %s, which is not https", next.URL.Redacted())
		case len(before) >= maxRedirects:
			return fmt.Errorf("it leads on and on, %d times", maxRedirects)
		}
		return nil
	}
	return &client
}

// body returns the text that a server sends, if all of it came and it is no web page.
func (f *Fetcher) body(response *http.Response) ([]byte, error) {
	most := f.MaxSize
	if most == 0 {
		most = MaxSize
	}
	tooLarge := fmt.Errorf("it is larger than %d MiB", (most+headRoom)>>20)
	if response.ContentLength > most {
		return nil, tooLarge
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("the connection was cut before all of it had come")
	case err != nil:
		return nil, err
	case int64(len(text)) > most:
		return nil, tooLarge
	}
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	begin := bytes.TrimLeft(bytes.TrimPrefix(text, []byte("\ufeff")), " \t\r\n")
	if kind == "text/html" || kind == "application/xhtml+xml" || bytes.HasPrefix(begin, []byte("<")) {
		return nil, errors.New("the server sends a web page (HTML)")
	}
	// Where the length was told one way or another, a last line without an end is complete.
	told := response.ContentLength >= 0 || response.Uncompressed || len(response.TransferEncoding) > 0 || response.ProtoMajor > 1
	if told && len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return text, nil
}

// judge returns why a text is no list to put in the place of the old copy, which may be nil.
func judge(list *policy.ListText, old *Copy, path string) error {
	n := len(list.Networks)
	switch {
	case list.Refused != "":
		err := errors.New(list.Refused)
		if len(list.Problems) > 0 && list.Lines > 0 {
			err = fmt.Errorf("%s, such as line %d: %s", list.Refused, list.Problems[0].Line, strings.TrimSpace(list.Problems[0].Msg))
		}
		return err
	case n == 0:
		return errors.New("there is no network in it")
	case old != nil && n*shrinkage < old.Networks:
		return fmt.Errorf("it has shrunk from %d networks to %d: if that is right, remove %s", old.Networks, n, path)
	}
	return nil
}

// judgeAdmitting returns why a list is not to be believed that a rule or trust names. A line that is left out could let
// somebody in, and would be an error in the policy file, so that nothing else in it came into force.
func judgeAdmitting(list *policy.ListText) error {
	if len(list.Problems) > 0 {
		bad := list.Problems[0]
		return fmt.Errorf("a rule or trust names it, and line %d is no network: %s", bad.Line, strings.TrimSpace(bad.Msg))
	}
	if i := slices.IndexFunc(list.Networks, policy.IsWide); i >= 0 {
		return fmt.Errorf("a rule or trust names it, and it holds %s, which is a large part of the internet", list.Networks[i])
	}
	return nil
}
