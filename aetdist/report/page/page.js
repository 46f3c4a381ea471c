"use strict";

/** The data that a script element of the page holds. */
function dataOf(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

// -- light and dark ---------------------------------------------------------------------------------

const theme = {
  button: document.getElementById("theme"),
  system: matchMedia("(prefers-color-scheme: dark)"),
  chosen: null,
  get dark() { return this.chosen === null ? this.system.matches : this.chosen === "dark"; },
  apply() {
    document.documentElement.style.colorScheme = this.chosen ?? "";
    for (const source of document.querySelectorAll("picture source")) {
      source.media = this.dark ? "all" : "not all";
    }
    this.button.textContent = this.dark ? "Light" : "Dark";
    this.button.setAttribute("aria-label", `Show the page ${this.dark ? "light" : "dark"}`);
    document.dispatchEvent(new Event("theme"));
  },
};
theme.button.hidden = false;
theme.button.addEventListener("click", () => {
  theme.chosen = theme.dark ? "light" : "dark";
  theme.apply();
});
theme.system.addEventListener("change", () => theme.apply());
theme.apply();

// -- series of frames behind a slider ---------------------------------------------------------------

for (const strip of document.querySelectorAll(".strip")) {
  const { frames, labels } = dataOf(strip.dataset.frames);
  const [image, slider, output] = ["img", "input", "output"].map((name) => strip.querySelector(name));
  slider.addEventListener("input", () => {
    const i = Number(slider.value);
    image.src = frames[i];
    output.textContent = labels[i];
    slider.setAttribute("aria-valuetext", labels[i]);
  });
}

// -- commands to copy -------------------------------------------------------------------------------

for (const button of document.querySelectorAll("button.copy")) {
  const text = document.getElementById(button.dataset.of);
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text); // a page of a file may not reach the clipboard: Ctrl-C does
      button.textContent = "Selected";
    }
  });
}
