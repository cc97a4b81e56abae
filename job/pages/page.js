// Search, filters, order and keys of a page. Writes text alone: it never makes HTML of anything.
"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const HIGHLIGHTS = 2000;

for (const element of all(".filters, .choice")) element.hidden = false;

// A choice shows one of several elements.
for (const select of all("select[data-chooses]")) {
  const options = all(`[data-choice="${select.dataset.chooses}"]`);
  const show = () => {
    for (const option of options) option.hidden = option.dataset.value !== select.value;
  };
  select.addEventListener("change", show);
  show();
}

for (const gallery of all(".gallery")) {
  const articles = all(".conversation", gallery);
  const texts = new Map(articles.map((article) => [article, article.textContent.toLowerCase()]));
  const numbers = new Map(articles.map((article) => [article, JSON.parse(article.dataset.numbers)]));
  const search = gallery.querySelector("input[type=search]");
  const order = gallery.querySelector(".filters select");
  const buttons = all("[data-tag]", gallery);
  const count = gallery.querySelector(".count");
  const none = gallery.querySelector(".none");
  let tag = "";

  const words = () => search.value.toLowerCase().split(/\s+/).filter(Boolean);

  const filter = () => {
    const wanted = words();
    let shown = 0;
    for (const article of articles) {
      const tags = article.dataset.tags.split(" ");
      const text = texts.get(article);
      article.hidden = Boolean(tag && !tags.includes(tag)) || !wanted.every((word) => text.includes(word));
      if (!article.hidden) shown += 1;
    }
    const of = Number(gallery.dataset.of);
    const embedded = of > articles.length ? `, chosen from ${of.toLocaleString("en")}` : "";
    count.textContent = `${shown} of ${articles.length} conversations${embedded}`;
    none.hidden = shown > 0;
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.tag === tag));
    }
    highlight(wanted);
  };

  const highlight = (wanted) => {
    if (!("highlights" in CSS)) return;
    CSS.highlights.delete("found");
    if (!wanted.length) return;
    const ranges = [];
    for (const article of articles) {
      if (article.hidden || ranges.length >= HIGHLIGHTS) continue;
      const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
      while (walker.nextNode() && ranges.length < HIGHLIGHTS) {
        const text = walker.currentNode.data.toLowerCase();
        // Lower case of a few letters is longer: then positions would be others.
        if (text.length !== walker.currentNode.data.length) continue;
        for (const word of wanted) {
          for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
            const range = new Range();
            range.setStart(walker.currentNode, at);
            range.setEnd(walker.currentNode, at + word.length);
            ranges.push(range);
          }
        }
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  };

  const sort = () => {
    const name = order.value;
    const sign = order.selectedOptions[0].dataset.descending ? -1 : 1;
    const value = (article) => numbers.get(article)[name];
    const sorted = [...articles];
    if (name) {
      // Those without the number come last.
      sorted.sort((a, b) => {
        const [left, right] = [value(a), value(b)];
        if (left === undefined || right === undefined) return (left === undefined) - (right === undefined);
        return sign * (left - right);
      });
    }
    for (const article of sorted) none.before(article);
  };

  const clear = () => {
    search.value = "";
    tag = "";
    filter();
    search.focus();
  };

  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") clear();
  });
  order.addEventListener("change", sort);
  for (const button of buttons) {
    button.addEventListener("click", () => {
      tag = button.dataset.tag;
      filter();
    });
  }
  for (const button of all("[data-open]", gallery)) {
    button.addEventListener("click", () => {
      for (const article of articles) {
        if (!article.hidden) article.querySelector("details").open = Boolean(button.dataset.open);
      }
    });
  }
  gallery.querySelector("[data-clear]").addEventListener("click", clear);
  filter();
}

// Keys: / searches, j and k go to the next and the previous conversation.
const step = (by) => {
  const heads = all(".conversation:not([hidden]) > details > summary");
  const present = heads.findIndex((head) => head.closest(".conversation").contains(document.activeElement));
  const next = heads[present < 0 ? 0 : Math.min(Math.max(present + by, 0), heads.length - 1)];
  if (!next) return;
  next.focus();
  next.scrollIntoView({ block: "start" });
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  const search = document.querySelector(".gallery input[type=search]");
  if (event.key === "/" && search) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
});

// A link to a conversation opens it.
const reveal = () => {
  const target = document.getElementById(location.hash.slice(1));
  const details = target && target.querySelector(":scope > details");
  if (details) details.open = true;
};
addEventListener("hashchange", reveal);
reveal();

// Paper has all conversations open.
let closed = [];
addEventListener("beforeprint", () => {
  closed = all(".conversation > details:not([open]), .printed:not([open])");
  for (const details of closed) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
});
