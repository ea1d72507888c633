// What makes the pages quicker to use. All of them do their job without it.
"use strict";
document.documentElement.classList.add("scripted");
const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };

// --- asking: drop, paste, camera, limits ---
const ask = $("ask");
if (ask) {
  const input = $("photo");

  const problem = (files) => {
    if (files.length > Number(ask.dataset.maxPhotos)) return ask.dataset.tooMany;
    const most = Number(ask.dataset.maxBytes);
    const large = [...files].find((file) => file.size > most);
    return large && ask.dataset.tooLarge.replace("{name}", large.name)
      .replace("{megabytes}", (large.size / 1e6).toFixed(1)).replace("{most}", Math.floor(most / 1e6));
  };

  const send = (files) => {
    const images = [...files].filter((file) => !file.type || file.type.startsWith("image/"));
    if (!images.length) return;
    const chosen = new DataTransfer();
    images.forEach((file) => chosen.items.add(file));
    input.files = chosen.files;
    ask.requestSubmit();
  };

  ask.addEventListener("submit", (event) => {
    const wrong = problem(input.files);
    if (wrong) { event.preventDefault(); say(wrong); return; }
    ask.querySelector("button.main").disabled = true;
    say(ask.dataset.looking);
  });
  window.addEventListener("pageshow", () => { ask.querySelector("button.main").disabled = false; say(""); });

  const dropping = (on) => document.documentElement.classList.toggle("dropping", on);
  document.addEventListener("dragover", (event) => { event.preventDefault(); dropping(true); });
  document.addEventListener("dragleave", () => dropping(false));
  document.addEventListener("drop", (event) => { event.preventDefault(); dropping(false); send(event.dataTransfer.files); });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) { event.preventDefault(); send(event.clipboardData.files); }
  });

  const dialog = $("camera-dialog"), video = dialog.querySelector("video"), camera = $("camera");
  if (!navigator.mediaDevices) camera.hidden = true;
  const shoot = $("shoot");
  shoot.disabled = true;
  video.addEventListener("playing", () => { shoot.disabled = false; });
  const close = () => { (video.srcObject ? video.srcObject.getTracks() : []).forEach((track) => track.stop()); video.srcObject = null; shoot.disabled = true; };
  dialog.addEventListener("close", close);
  $("camera-close").addEventListener("click", () => dialog.close());
  camera.addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
    } catch (error) { say(camera.dataset.refused.replace("{reason}", error.message)); return; }
    dialog.showModal();
    await video.play();
  });
  shoot.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth; canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => { dialog.close(); send([new File([blob], "camera.jpg", { type: "image/jpeg" })]); }, "image/jpeg", 0.92);
  });
}

// --- an answer: draw a box, copy the link ---
const sent = $("sent"), box = $("box");
if (sent && box) {
  const svg = sent.querySelector("svg");
  let start = null, drawn = null;
  const at = (event) => {
    const area = svg.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    return { x: within((event.clientX - area.left) / area.width), y: within((event.clientY - area.top) / area.height) };
  };
  const edges = (end) => ({ left: Math.min(start.x, end.x), top: Math.min(start.y, end.y), right: Math.max(start.x, end.x), bottom: Math.max(start.y, end.y) });
  const small = (e) => e.right - e.left < 0.03 || e.bottom - e.top < 0.03;
  svg.addEventListener("dragstart", (event) => event.preventDefault());
  svg.addEventListener("pointerdown", (event) => { start = at(event); });
  svg.addEventListener("pointermove", (event) => {
    if (!start || !event.buttons) return;
    const e = edges(at(event));
    if (!drawn) {
      if (small(e)) return;
      svg.setPointerCapture(event.pointerId);
      drawn = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
      drawn.setAttribute("class", "drawn");
    }
    for (const [name, value] of [["x", e.left], ["y", e.top], ["width", e.right - e.left], ["height", e.bottom - e.top]]) drawn.setAttribute(name, value);
  });
  svg.addEventListener("pointerup", (event) => {
    if (drawn) {
      const e = edges(at(event));
      for (const side of ["left", "top", "right", "bottom"]) box.elements[side].value = (100 * e[side]).toFixed(1);
      if (!small(e)) { say(box.dataset.looking); box.requestSubmit(); }
      drawn.remove();
    }
    start = drawn = null;
  });
}
const copy = $("copy");
if (copy) copy.addEventListener("click", async () => {
  try { await navigator.clipboard.writeText($("link").value); } catch { $("link").select(); document.execCommand("copy"); }
  say(copy.dataset.copied);
});

// --- the gallery: search as you type ---
const search = $("search");
if (search) {
  let asked = 0;
  search.elements.q.addEventListener("input", async () => {
    const number = ++asked;
    const reply = await fetch(`/gallery?${new URLSearchParams({ q: search.elements.q.value })}`);
    if (number !== asked || !reply.ok) return;
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    $("found").replaceWith(page.getElementById("found"));
  });
}

// --- adding a car: photos one by one, with progress ---
const enrol = $("enrol");
if (enrol) enrol.addEventListener("submit", async (event) => {
  const files = [...enrol.elements.photo.files];
  if (files.length < 2) return;
  event.preventDefault();
  const button = enrol.querySelector("button.main"), bar = $("progress");
  button.disabled = true;
  bar.hidden = false;
  bar.max = files.length;
  let draft = "";
  try {
    for (const [n, file] of files.entries()) {
      say(enrol.dataset.progress.replace("{done}", n).replace("{all}", files.length));
      const form = new FormData();
      form.append("label", enrol.elements.label.value);
      form.append("draft", draft);
      form.append("photo", file);
      const reply = await fetch("/enrol", { method: "POST", body: form, headers: { Accept: "application/json" } });
      const told = await reply.json();
      if (!reply.ok) throw new Error(told.detail);
      draft = told.draft;
      bar.value = n + 1;
    }
  } catch (error) {
    say(enrol.dataset.failed.replace("{reason}", error.message));
    button.disabled = false;
    return;
  }
  location.assign(`/enrol/${draft}`);
});
