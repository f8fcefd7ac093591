package query

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// reply is an answer, checked against the API description.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (a reply) problem() string {
	var p struct{ Type string }
	if json.Unmarshal(a.body, &p) != nil {
		return ""
	}
	return strings.TrimPrefix(p.Type, typePrefix)
}

// page is the answer of the two routes of events.
type page struct {
	Events []struct {
		ID, Kind string
		Data     map[string]any
	}
	Next     string `json:"next_cursor"`
	Horizon  horizonAnswer
	Withheld map[string]any
}

func (a reply) page(t *testing.T) (p page) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("got status %d: %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p page) ids() string {
	var ids []string
	for _, e := range p.Events {
		ids = append(ids, e.ID)
	}
	return strings.Join(ids, " ")
}

// get asks as the caller of that name; headers are name, value pairs.
func (d *desk) get(as, path string, headers ...string) reply {
	d.t.Helper()
	return d.ask(http.MethodGet, as, path, "", headers...)
}

func (d *desk) ask(method, as, path, body string, headers ...string) reply {
	d.t.Helper()
	a, err := d.try(method, as, path, body, headers...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.check(method, path, a)
	return a
}

func (d *desk) try(method, as, path, body string, headers ...string) (reply, error) {
	req, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if as != "" {
		req.Header.Set("Authorization", "Bearer "+d.tokens[as])
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := d.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, b}, err
}

// routeOf returns the route of a path.
func routeOf(path string) string {
	path, _, _ = strings.Cut(path, "?")
	switch parts := strings.Split(path, "/"); {
	case len(parts) == 5 && parts[1] == "v1" && parts[2] == "subjects":
		return "/v1/subjects/{key}/" + parts[4]
	case len(parts) == 4 && parts[2] == "erasures":
		return pathErasure
	case len(parts) == 5 && parts[2] == "holds":
		return pathRelease
	default:
		return path
	}
}

// check validates an answer against the API description with kin-openapi, which
// hands the schemas of 3.1 documents to a JSON Schema 2020-12 validator;
// TestDescription shows that it does.
func (d *desk) check(method, path string, a reply) {
	d.t.Helper()
	item := d.spec.Paths.Value(routeOf(path))
	if item == nil || item.GetOperation(method) == nil {
		return // not a route: the answer is a problem
	}
	u, err := url.Parse(d.url + path)
	if err != nil {
		d.t.Fatal(err)
	}
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: &http.Request{Method: method, URL: u},
			Route:   &routers.Route{Spec: d.spec, Path: routeOf(path), PathItem: item, Method: method, Operation: item.GetOperation(method)},
		},
		Status: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: !strings.Contains(a.header.Get("Content-Type"), "json")},
	}
	if err := openapi3filter.ValidateResponse(context.Background(), in); err != nil {
		d.t.Errorf("%s %s answers what the description does not say: %v", method, routeOf(path), err)
	}
}
