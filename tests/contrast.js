// Returns the texts of the page whose contrast is below AA (WCAG 2.2, 1.4.3), from computed styles.
(() => {
  const parse = (color) => {
    const numbers = color.match(/[\d.]+/g).map(Number);
    return { rgb: numbers.slice(0, 3), alpha: numbers.length > 3 ? numbers[3] : 1 };
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { rgb, alpha } = parse(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return rgb;
      if (alpha !== 0) throw new Error(`half transparent: ${at.className}`);
    }
    throw new Error("no background");
  };

  const found = [];
  let count = 0;
  const check = (element, color, behind, least, what) => {
    count += 1;
    const ratio = contrast(parse(color).rgb, behind);
    if (ratio < least) found.push(`${ratio.toFixed(2)} of ${least}: ${what} in <${element.tagName} class="${element.getAttribute("class")}">`);
  };

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || element.closest("script, title, desc, option, [hidden], .unseen")) continue;
    if (!element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const isDrawn = element instanceof SVGElement;
    const pixels = parseFloat(style.fontSize);
    const isLarge = pixels >= 24 || (pixels >= 18.66 && Number(style.fontWeight) >= 700);
    check(element, isDrawn ? style.fill : style.color, background(element), isLarge ? 3 : 4.5, text.slice(0, 30));
  }
  for (const input of document.querySelectorAll("input")) {
    check(input, getComputedStyle(input, "::placeholder").color, background(input), 4.5, "a placeholder");
  }
  // What is found is painted by the script: its colours are variables.
  const variables = getComputedStyle(document.documentElement);
  const value = (name) => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = variables.getPropertyValue(name).trim();
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  if (contrast(value("--found"), value("--on-found")) < 4.5) found.push("the highlight of a search");

  // Controls and the marks of charts: 3 to 1 (1.4.11).
  for (const element of document.querySelectorAll("input, select, button")) {
    if (element.getClientRects().length) {
      check(element, getComputedStyle(element).borderTopColor, background(element.parentElement), 3, "a border");
    }
  }
  for (const element of document.querySelectorAll("svg .dot, svg line.bar, svg polyline, svg .median, svg .zero, svg rect")) {
    const style = getComputedStyle(element);
    check(element, element.tagName === "rect" ? style.fill : style.stroke, background(element), 3, "a mark of a chart");
  }
  return { found, count };
})()
