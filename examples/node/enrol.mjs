// Teaches the gallery a car, while it serves: node enrol.mjs honda_pilot_2027 front.jpg side.jpg
import { readFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { call, embedder, gallery, main } from "./vmmr.mjs";

main("enrol.mjs LABEL PHOTO ...", 2, async ([label, ...photos]) => {
  const images = await Promise.all(photos.map(async (photo) => ({ content: await readFile(photo) })));
  const { embeddings } = await call(embedder, "Embed", { images });
  const items = photos.map((photo) => ({
    item_id: `${label}/${basename(photo)}`, // the same id again replaces the item, so a call can safely be repeated
    label,
    uri: resolve(photo),
  }));
  const { added, replaced, journal_sequence } = await call(gallery, "AddItems", { items, embeddings });
  console.log(`${added} added, ${replaced} replaced; on the disk as entry ${journal_sequence} of the journal`);
});
