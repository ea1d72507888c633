// A caller of the vmmr services in Go. It says which car a photo shows, or teaches the gallery a car while it serves:
//
//	go run . identify car.jpg
//	go run . enrol honda_pilot_2027 front.jpg side.jpg
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	embedderv1 "vmmr-example/gen/vmmr/embedder/v1"
	embeddingv1 "vmmr-example/gen/vmmr/embedding/v1"
	galleryv1 "vmmr-example/gen/vmmr/gallery/v1"
	searchv1 "vmmr-example/gen/vmmr/search/v1"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: identify PHOTO | enrol LABEL PHOTO ...")
	}
	// Every call has a deadline; without one it could wait for ever.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	embedder := connect("VMMR_EMBEDDER", "localhost:50051")
	search := connect("VMMR_SEARCH", "localhost:50052")

	var err error
	switch command, arguments := os.Args[1], os.Args[2:]; command {
	case "identify":
		err = identify(ctx, embedder, search, arguments[0])
	case "enrol":
		err = enrol(ctx, embedder, search, arguments[0], arguments[1:])
	default:
		log.Fatalf("no such command: %s", command)
	}
	if err != nil {
		explain(err)
		os.Exit(1)
	}
}

// identify prints the car that a photo shows, and the gallery's photos that the answer stands on.
func identify(ctx context.Context, embedder, search grpc.ClientConnInterface, photo string) error {
	embeddings, err := embed(ctx, embedder, photo)
	if err != nil {
		return err
	}
	request := &searchv1.ClassifyRequest{Queries: embeddings}
	reply, err := searchv1.NewSearchServiceClient(search).Classify(ctx, request)
	if err != nil {
		return err
	}
	found := reply.Results[0]
	fmt.Printf("%s (%s, %.2f)\n", found.GetAnswer().GetLabel(), found.Verdict, found.LabelConfidence)
	for _, near := range found.Neighbours {
		fmt.Printf("%.3f %s %s\n", near.Score, near.Label.Label, near.Uri)
	}
	return nil
}

// enrol adds photos of a car to the gallery that is served.
func enrol(ctx context.Context, embedder, search grpc.ClientConnInterface, label string, photos []string) error {
	embeddings, err := embed(ctx, embedder, photos...)
	if err != nil {
		return err
	}
	request := &galleryv1.AddItemsRequest{Embeddings: embeddings}
	for _, photo := range photos {
		// The same id again replaces the item, so a call can safely be repeated.
		id := label + "/" + filepath.Base(photo)
		request.Items = append(request.Items, &galleryv1.Item{ItemId: id, Label: label, Uri: photo})
	}
	reply, err := galleryv1.NewGalleryServiceClient(search).AddItems(ctx, request)
	if err != nil {
		return err
	}
	fmt.Printf("%d added, %d replaced; on the disk as entry %d of the journal\n", reply.Added, reply.Replaced, reply.JournalSequence)
	return nil
}

// embed reads photos and turns them into embeddings, one row a photo.
func embed(ctx context.Context, embedder grpc.ClientConnInterface, photos ...string) (*embeddingv1.Embeddings, error) {
	request := &embedderv1.EmbedRequest{}
	for _, photo := range photos {
		content, err := os.ReadFile(photo)
		if err != nil {
			return nil, err
		}
		request.Images = append(request.Images, &embedderv1.Image{Content: content})
	}
	reply, err := embedderv1.NewEmbedderServiceClient(embedder).Embed(ctx, request)
	return reply.GetEmbeddings(), err
}

// explain prints what went wrong; of a call, the service's reason. Branch on the reason, never on the message.
func explain(err error) {
	failed, ok := status.FromError(err)
	if !ok {
		log.Print(err)
		return
	}
	reason := failed.Code().String()
	var violations []*errdetails.BadRequest_FieldViolation
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.Reason
		case *errdetails.BadRequest:
			violations = detail.FieldViolations
		}
	}
	log.Printf("%s: %s", reason, failed.Message())
	for _, bad := range violations {
		log.Printf("  %s: %s: %s", bad.Field, bad.Reason, bad.Description)
	}
}

// connect opens a channel to the address in an environment variable, or to the service's usual one.
func connect(variable, usual string) *grpc.ClientConn {
	address := cmp.Or(os.Getenv(variable), usual)
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	return connection
}
