// Spheres in WebGL: each is one point whose fragments are shaded as a ball, seen in parallel projection.

const VERTEX = `
attribute vec3 place;
attribute vec4 look;            // red, green, blue, and half of the size beside the usual one
uniform mat3 turn;
uniform vec2 scale;             // of an Angstrom, in halves of the view
uniform float depth, diameter;  // 1 / half of the sample's depth in Angstrom; pixels
varying vec3 colour;
varying float far;
void main() {
  vec3 seen = turn * place;
  gl_Position = vec4(seen.xy * scale, -seen.z * depth * 0.9, 1.0);
  gl_PointSize = diameter * look.a * 2.0;
  colour = look.rgb;
  far = 0.5 - 0.5 * seen.z * depth;
}`;

const FRAGMENT = `
precision mediump float;
uniform vec3 paper;
varying vec3 colour;
varying float far;
void main() {
  vec2 at = 2.0 * gl_PointCoord - 1.0;
  float square = dot(at, at);
  if (square > 1.0) discard;
  vec3 normal = vec3(at.x, -at.y, sqrt(1.0 - square));
  float lit = max(dot(normal, vec3(-0.36, 0.48, 0.80)), 0.0);
  vec3 shaded = colour * (0.42 + 0.62 * lit) + 0.22 * pow(lit, 24.0);
  gl_FragColor = vec4(mix(shaded, paper, 0.45 * clamp(far, 0.0, 1.0)), 1.0);
}`;

class Spheres {
  /** Draws into a canvas; Error where the browser has no WebGL. */
  constructor(canvas) {
    this.canvas = canvas;
    const gl = this.gl = canvas.getContext("webgl", { antialias: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("the browser has none");
    const program = this.program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    gl.enable(gl.DEPTH_TEST);
    this.places = gl.createBuffer();
    this.looks = gl.createBuffer();
    this.uniform = (name) => gl.getUniformLocation(program, name);
  }

  /** Positions in Angstrom, three numbers of each atom, from the point that the view turns about. */
  setPlaces(places) {
    this.n = places.length / 3;
    this.fill("place", this.places, places, 3, this.gl.FLOAT);
    let reach = 0;
    for (let i = 0; i < places.length; i += 3) {
      reach = Math.max(reach, Math.hypot(places[i], places[i + 1], places[i + 2]));
    }
    this.reach = Math.max(reach, 1);
  }

  /** Red, green, blue (0 to 255) of each atom, and 128 times its size beside the usual one. */
  setLooks(looks) {
    this.fill("look", this.looks, looks, 4, this.gl.UNSIGNED_BYTE);
  }

  fill(name, buffer, values, size, type) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const index = gl.getAttribLocation(this.program, name);
    gl.enableVertexAttribArray(index);
    gl.vertexAttribPointer(index, size, type, type !== gl.FLOAT, 0, 0);
  }

  /** Draw: rows of a rotation, pixels of an Angstrom, Angstrom of an atom's diameter, colour of the paper. */
  draw(turn, zoom, diameter, paper) {
    const { gl, canvas } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...paper, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const [a, b, c] = turn;
    gl.uniformMatrix3fv(this.uniform("turn"), false, [a[0], b[0], c[0], a[1], b[1], c[1], a[2], b[2], c[2]]);
    gl.uniform2f(this.uniform("scale"), (2 * zoom) / canvas.width, (2 * zoom) / canvas.height);
    gl.uniform1f(this.uniform("depth"), 1 / this.reach);
    gl.uniform1f(this.uniform("diameter"), zoom * diameter);
    gl.uniform3f(this.uniform("paper"), ...paper);
    gl.drawArrays(gl.POINTS, 0, this.n);
  }
}
