// Returns the layout problems of the page as a list of texts, given the expected width in pixels.

(width) => {
  const problems = [];
  const { scrollWidth } = document.scrollingElement;
  if (scrollWidth > width) problems.push(`the page is ${scrollWidth} px wide`);

  const seen = [...document.body.querySelectorAll('*')].filter((el) => el.checkVisibility({ visibilityProperty: true }));
  const name = (el) => `<${el.localName} class="${el.className}"> ${el.textContent.trim().slice(0, 40)}`;
  const scrolls = (el) => el && (/auto|scroll|hidden|clip/.test(getComputedStyle(el).overflowX) || scrolls(el.parentElement));
  for (const el of seen) {
    const { left, right } = el.getBoundingClientRect();
    if ((right > width + 0.5 || left < -0.5) && !scrolls(el.parentElement)) problems.push(`overflows the page: ${name(el)}`);
  }
  for (const el of document.querySelectorAll('[data-role="log"]')) {
    if (el.scrollWidth > el.clientWidth) problems.push(`scrolls sideways: ${name(el)}`);
  }

  const left = (selector) => document.querySelector(selector)?.getBoundingClientRect().left;
  const [answer, composer] = ['.fs-answer', '.fs-composer'].map(left);
  if (Math.abs(answer - composer) > 1) problems.push(`the answer begins at ${answer}, the composer at ${composer}`);

  // Contrast as in WCAG 2: at least 4.5 to 1, or 3 to 1 for large text.
  const brush = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = colour;
    brush.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], under) => [...[r, g, b].map((part, i) => part * a + under[i] * (1 - a)), 1];
  const ground = (el) => (el ? over(rgba(getComputedStyle(el).backgroundColor), ground(el.parentElement)) : [255, 255, 255, 1]);
  const opacity = (el) => (el ? Number(getComputedStyle(el).opacity) * opacity(el.parentElement) : 1);
  const light = (colour) => {
    const [r, g, b] = colour.map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (const el of seen) {
    const own = [...el.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const through = opacity(el);
    // Text which is transparent until hovered, and disabled controls, need no contrast.
    if (!own || through < 0.1 || el.closest(':disabled, .fs-hidden, option')) continue;
    const { color, fontSize, fontWeight } = getComputedStyle(el);
    const under = ground(el);
    const [r, g, b, a] = rgba(color);
    const [bright, dark] = [over([r, g, b, a * through], under), under].map(light).sort((one, two) => two - one);
    const ratio = (bright + 0.05) / (dark + 0.05);
    const size = parseFloat(fontSize);
    const minimum = size >= 24 || (size >= 18.66 && fontWeight >= 700) ? 3 : 4.5;
    if (ratio < minimum) problems.push(`contrast ${ratio.toFixed(2)}: ${name(el)}`);
  }
  return problems;
}
