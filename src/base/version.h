/* The version of this build, as `supermachine version` and snapshots name it (Semantic Versioning 2.0.0). */
#ifndef SM_BASE_VERSION_H
#define SM_BASE_VERSION_H

#define SM_VERSION "0.1.0"

#endif
