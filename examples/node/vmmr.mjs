// The three vmmr services, and what their errors say. The contracts are read from protos/ when the program starts.
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const contracts = protoLoader.loadSync(
  [
    "vmmr/embedder/v1/embedder.proto",
    "vmmr/search/v1/search.proto",
    "vmmr/gallery/v1/gallery.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
  ],
  {
    includeDirs: [fileURLToPath(new URL("../../protos", import.meta.url))],
    keepCase: true, // field names as the protos and the documentation have them
    enums: String,
    longs: Number,
    defaults: true,
  },
);
const { vmmr } = grpc.loadPackageDefinition(contracts);
const { VMMR_EMBEDDER = "localhost:50051", VMMR_SEARCH = "localhost:50052" } = process.env;
const plaintext = grpc.credentials.createInsecure();

export const embedder = new vmmr.embedder.v1.EmbedderService(VMMR_EMBEDDER, plaintext);
export const search = new vmmr.search.v1.SearchService(VMMR_SEARCH, plaintext);
export const gallery = new vmmr.gallery.v1.GalleryService(VMMR_SEARCH, plaintext);

/** Calls a method and resolves with its reply. Every call has a deadline; without one it could wait for ever. */
export function call(service, method, request, timeoutMs = 30_000) {
  const options = { deadline: Date.now() + timeoutMs };
  return new Promise((resolve, reject) => {
    service[method](request, options, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

/** Returns an error's details by message name, such as `google.rpc.ErrorInfo`; none if gRPC itself made the error. */
export function details(error) {
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!packed) return {};
  const status = contracts["google.rpc.Status"].deserialize(packed);
  return Object.fromEntries(
    status.details.map(({ type_url, value }) => {
      const name = type_url.split("/").at(-1);
      return [name, contracts[name].deserialize(value)];
    }),
  );
}

/**
 * Runs a program; if a call fails, prints why and exits with 1. Branch on the reason, never on the message.
 * With fewer than `least` arguments it prints the usage instead, and exits with 2.
 */
export async function main(usage, least, program) {
  const given = process.argv.slice(2);
  if (given.length < least) {
    console.error(`usage: node ${usage}`);
    process.exitCode = 2;
    return;
  }
  try {
    await program(given);
  } catch (error) {
    process.exitCode = 1;
    if (error.syscall) return console.error(error.message); // of a photo that cannot be read
    if (error.code === undefined || !error.metadata) throw error;
    const { "google.rpc.ErrorInfo": info, "google.rpc.BadRequest": bad } = details(error);
    console.error(`${info?.reason ?? grpc.status[error.code]}: ${error.details}`);
    for (const { field, reason, description } of bad?.field_violations ?? []) {
      console.error(`  ${field}: ${reason}: ${description}`);
    }
  }
}
