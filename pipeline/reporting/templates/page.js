// Opens what is behind a number (also by link: #run-...) and enlarges pictures.
const picture = document.getElementById("picture");
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-open]");
  if (opener) show(opener.dataset.open);
  const zoom = event.target.closest(".zoom");
  if (zoom) {
    const image = zoom.querySelector("img");
    const large = picture.querySelector("img");
    large.src = image.src;
    large.alt = image.alt;
    large.style.aspectRatio = `${image.width} / ${image.height}`;
    picture.querySelector("p").textContent = image.alt;
    picture.showModal();
  }
  // A click on the backdrop lands on the dialog itself.
  if (event.target instanceof HTMLDialogElement) event.target.close();
});
function show(id) {
  const dialog = document.getElementById(id);
  if (!(dialog instanceof HTMLDialogElement) || dialog.open) return;
  history.replaceState(null, "", `#${id}`);
  dialog.showModal();
  dialog.scrollTop = 0;
}
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
}
if (location.hash.startsWith("#run-")) show(location.hash.slice(1));
