// Says which car a photo shows: node identify.mjs car.jpg
import { readFile } from "node:fs/promises";
import { call, embedder, main, search } from "./vmmr.mjs";

main("identify.mjs PHOTO", 1, async ([photo]) => {
  const { embeddings } = await call(embedder, "Embed", { images: [{ content: await readFile(photo) }] });
  const { results } = await call(search, "Classify", { queries: embeddings });
  const [{ answer, verdict, label_confidence, neighbours }] = results;
  console.log(`${answer?.label ?? "nothing found"} (${verdict}, ${label_confidence.toFixed(2)})`);
  for (const { score, label, uri } of neighbours) {
    console.log(`${score.toFixed(3)} ${label.label} ${uri}`);
  }
});
