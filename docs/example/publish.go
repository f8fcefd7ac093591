// Command example publishes one request event, as a Go service would after it
// has answered a request.
package main

import (
	"context"
	"encoding/json"
	"log"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
)

func main() {
	w := &kafka.Writer{
		Addr:         kafka.TCP("127.0.0.1:9092"),
		Topic:        "lethe.request",
		RequiredAcks: kafka.RequireAll, // kafka-go's default is not to wait at all
		BatchTimeout: 10 * time.Millisecond,
	}
	defer w.Close()

	value, err := json.Marshal(map[string]any{
		"specversion": "1.0",
		"id":          uuid.NewString(),
		"source":      "/svc/api",
		"type":        "com.example.request.completed.v1",
		"time":        time.Now().UTC().Format(time.RFC3339Nano),
		"data": map[string]any{
			"http.request.method":       "GET",
			"http.route":                "/v1/workspaces/{id}",
			"http.response.status_code": 200,
			"client.address":            "203.0.113.7:51234",
			"user.id":                   "u_42",
			"organization.id":           "org_7",
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	// The key is the organization or empty, never a person: keys outlive values.
	if err := w.WriteMessages(context.Background(), kafka.Message{Key: []byte("org_7"), Value: value}); err != nil {
		log.Fatal(err)
	}
}
